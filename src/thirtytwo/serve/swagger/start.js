// Show the kind of problem that the address names, such as /docs#busy.
const showProblem = () => {
  const kind = decodeURIComponent(location.hash.slice(1));
  const cell = [...document.querySelectorAll(".info td code")].find((code) => code.textContent === kind);
  cell?.scrollIntoView({ block: "center" });
};
addEventListener("hashchange", showProblem);
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "openapi.json",
  validatorUrl: null, // the default sends the document to swagger.io
  docExpansion: "list",
  onComplete: showProblem,
});
