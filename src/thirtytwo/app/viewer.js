// Opens images that are clicked: at first as they are on the page, then from their files, which the server names.
const parts = `
<div class="tt-viewer-bar">
  <div><h2 id="tt-viewer-title" tabindex="-1"></h2><p class="tt-viewer-about" aria-live="polite"></p></div>
  <div class="tt-viewer-tools">
    <button type="button" data-step="-1" aria-label="Previous image" title="Previous image (←)">‹</button>
    <button type="button" data-step="1" aria-label="Next image" title="Next image (→)">›</button>
    <button type="button" data-do="size" aria-pressed="false">Actual size</button>
    <button type="button" data-do="close">Close</button>
  </div>
</div>
<div class="tt-viewer-stage" tabindex="0" role="region" aria-label="Image"><div class="tt-viewer-frame">
  <img class="tt-viewer-image" alt=""><img class="tt-viewer-heat" alt="" hidden><div class="tt-viewer-square" hidden></div>
</div></div>
<div class="tt-viewer-foot">
  <p class="tt-viewer-note"></p>
  <div class="tt-viewer-options">
    <label data-of="square"><input type="checkbox" checked> Mark it</label>
    <label data-of="heat"><input type="checkbox"> Heatmap</label>
    <span class="tt-legend" hidden><span>no evidence</span><i></i><span>strongest evidence</span></span>
  </div>
  <p class="tt-viewer-note tt-viewer-method"></p>
</div>`;

const create = () => {
  const dialog = document.createElement("dialog");
  dialog.id = "tt-viewer";
  dialog.setAttribute("aria-labelledby", "tt-viewer-title");
  dialog.innerHTML = parts;
  document.body.append(dialog);
  const find = (selector) => dialog.querySelector(selector);
  const [image, heat, square, frame] = ["image", "heat", "square", "frame"].map((name) => find(`.tt-viewer-${name}`));
  const [title, about, note, method] = [find("h2"), ...["about", "note", "method"].map((name) => find(`.tt-viewer-${name}`))];
  const legend = find(".tt-legend");
  const box = (name) => find(`[data-of=${name}]`);
  const checked = (name) => box(name).querySelector("input").checked;
  const viewer = { key: "", send: () => {}, marks: true, heats: false, data: {} };

  const draw = () => {
    const { square: at, heatable, heat: layer } = viewer.data;
    box("square").hidden = !at;
    box("heat").hidden = !heatable;
    square.hidden = !(at && checked("square"));
    if (at) {
      const [left, top, width, height] = at.map((share) => `${100 * share}%`);
      Object.assign(square.style, { left, top, width, height });
    }
    const shown = Boolean(heatable && checked("heat"));
    if (layer) heat.src = layer;
    heat.hidden = !(shown && layer);
    frame.classList.toggle("tt-heated", !heat.hidden);
    legend.hidden = heat.hidden;
    method.textContent = !shown ? "" : layer ? viewer.data.heatNote : "Computing the heatmap …";
  };
  const ask = () => viewer.send({ key: viewer.key, heat: checked("heat") });
  const buttons = () => [...document.querySelectorAll("[data-tt-open]")].filter((one) => one.offsetParent);
  const show = (button) => {
    viewer.key = button.dataset.ttOpen;
    viewer.data = {};
    const shown = button.querySelector("img");
    image.src = shown?.src ?? "";
    image.alt = shown?.alt ?? "";
    image.className = `tt-viewer-image${shown?.classList.contains("tt-sharp") ? " tt-sharp" : ""}`;
    frame.style.removeProperty("--ratio");
    title.textContent = button.title.replace(/^Enlarge /, "");
    about.textContent = "Opening …";
    note.textContent = "";
    size(false);
    draw();
    ask();
  };
  const size = (actual) => {
    dialog.classList.toggle("tt-actual", actual);
    find("[data-do=size]").setAttribute("aria-pressed", String(actual));
  };
  const step = (by) => {
    const all = buttons();
    const at = all.findIndex((one) => one.dataset.ttOpen === viewer.key);
    if (all.length) show(all[(Math.max(at, 0) + by + all.length) % all.length]);
  };

  viewer.open = (button, style) => {
    for (const [name, value] of Object.entries(style)) dialog.style.setProperty(name, value);
    viewer.from = button;
    viewer.answered = false;
    show(button);
    dialog.showModal();
    title.focus();
  };
  // The server's answer. The heatmap may come after the image: nothing that is shown already is replaced by the same.
  viewer.take = (data) => {
    find(".tt-legend i").style.background = `linear-gradient(to right, ${data.legend.join(",")})`;
    if (data.key !== viewer.key || !dialog.open) return;
    if (data.problem) {
      about.textContent = data.problem;
      return;
    }
    viewer.data = data;
    if (image.getAttribute("src") !== data.source) image.src = data.source;
    image.classList.toggle("tt-sharp", Boolean(data.pixelated));
    frame.style.setProperty("--ratio", `${data.width} / ${data.height}`);
    frame.style.setProperty("--width", `${data.width}px`);
    title.textContent = data.name;
    const pixels = `${data.width}×${data.height} pixels`;
    about.textContent = [data.caption, data.decoded ? `${pixels}, as decoded` : pixels].filter(Boolean).join(" · ");
    note.textContent = data.note ?? "";
    if (data.heat && !checked("heat") && !viewer.answered) box("heat").querySelector("input").checked = true;
    viewer.answered = true;
    draw();
  };
  dialog.addEventListener("close", () => {
    image.removeAttribute("src");
    heat.removeAttribute("src");
    const from = buttons().find((one) => one.dataset.ttOpen === viewer.key) ?? viewer.from;
    from?.focus(); // also where the page was drawn anew meanwhile
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    const button = event.target.closest("button");
    if (button?.dataset.step) step(Number(button.dataset.step));
    if (button?.dataset.do === "close") dialog.close();
    if (button?.dataset.do === "size") size(!dialog.classList.contains("tt-actual"));
  });
  box("square").addEventListener("change", draw);
  box("heat").addEventListener("change", () => {
    draw();
    if (checked("heat") && !viewer.data.heat) ask();
  });
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation(); // these keys are not those of the page below
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || dialog.classList.contains("tt-actual")) return;
    event.preventDefault();
    step(by);
  });
  return viewer;
};

export default function ({ data, parentElement, setTriggerValue }) {
  if (!window.thirtytwoViewer) {
    window.thirtytwoViewer = create();
    document.addEventListener("click", (event) => {
      const button = event.target.closest?.("[data-tt-open]");
      if (!button) return;
      const style = getComputedStyle(window.thirtytwoViewer.place);
      window.thirtytwoViewer.open(button, {
        "--paper": style.getPropertyValue("--st-background-color"),
        "--ink": style.getPropertyValue("--st-text-color"),
        "--rule": style.getPropertyValue("--st-border-color"),
        "--accent": style.getPropertyValue("--st-primary-color"),
        "--font": style.getPropertyValue("--st-font"),
      });
    });
  }
  const viewer = window.thirtytwoViewer;
  viewer.place = parentElement;
  viewer.send = (value) => setTriggerValue("asked", value);
  viewer.take(data);
}
