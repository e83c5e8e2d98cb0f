"use strict";
// The viewer enlarges the images of a group side by side; Previous and Next step through the groups of a finding.
{
  const viewer = document.getElementById("viewer");
  const title = document.getElementById("viewer-title");
  const count = document.getElementById("viewer-count");
  const body = document.getElementById("viewer-body");
  const many = 3; // images from which they are drawn smaller
  let tour = { groups: [], at: 0 };
  const show = (chosen = null) => {
    const group = tour.groups[tour.at];
    const figures = [...group.querySelectorAll("figure")];
    const drawn = document.createElement("div");
    drawn.className = group.className;
    if (figures.length > many) drawn.classList.add("many");
    for (const figure of figures) {
      const copy = figure.cloneNode(true);
      const button = copy.querySelector(".enlarge");
      if (button) button.replaceWith(button.firstElementChild);
      if (figure === (chosen ?? figures[0])) copy.classList.add("chosen");
      drawn.append(copy);
    }
    title.textContent = group.closest("section").querySelector("h2").dataset.title;
    const about = group.querySelector(".about");
    const place = `${tour.at + 1} of ${tour.groups.length} shown`;
    count.textContent = about ? `${place} · ${about.textContent.replace(/^\s*\d+\s*/, "").trim()}`.replace(/ · $/, "") : place;
    body.replaceChildren(drawn);
    viewer.scrollTop = 0;
  };
  const step = (by) => {
    tour.at = (tour.at + by + tour.groups.length) % tour.groups.length;
    show();
  };
  for (const finding of document.querySelectorAll(".finding")) {
    const groups = [...finding.querySelectorAll(".group")];
    finding.addEventListener("click", (event) => {
      const button = event.target.closest(".enlarge");
      if (!button) return;
      tour = { groups, at: groups.indexOf(button.closest(".group")) };
      show(button.closest("figure"));
      viewer.showModal();
      title.focus();
    });
  }
  for (const button of viewer.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", () => body.replaceChildren());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
}
