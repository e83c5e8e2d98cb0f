"use strict";
// A table is sorted by the column whose heading is selected, by the data-v of its cells.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const first = head.dataset.first || "descending";
    const other = first === "descending" ? "ascending" : "descending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach((cell) => cell.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
    const body = table.tBodies[0];
    const compare = (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
    const number = (row) => (value(row) === "" ? -1 : Number(value(row)));
    const numeric = head.classList.contains("n");
    const rows = [...body.rows].sort((a, b) => (numeric ? number(a) - number(b) : compare(a, b)));
    body.append(...(direction === "descending" ? rows.reverse() : rows));
  }));
}
// The confusion matrix shows the cell under the pointer or at the keyboard cursor; a click or Enter selects it.
for (const matrix of document.querySelectorAll("svg.matrix")) {
  const names = JSON.parse(matrix.dataset.names);
  const cells = new Map([...matrix.querySelectorAll("[data-at]")].map((cell) => [cell.dataset.at, cell]));
  const readout = document.getElementById(`readout-${matrix.dataset.of}`);
  const cursor = matrix.querySelector(".cursor");
  const size = Number(cursor.getAttribute("width"));
  const margin = Number(cursor.dataset.margin);
  let at = [0, 0];
  const show = (row, column) => {
    if (row < 0 || column < 0 || row >= names.length || column >= names.length) return;
    at = [row, column];
    const cell = cells.get(`${row},${column}`);
    readout.textContent = cell ? cell.querySelector("title").textContent : `${names[row]} predicted as ${names[column]}: 0`;
    cursor.setAttribute("x", margin + column * size);
    cursor.setAttribute("y", margin + row * size);
    cursor.style.visibility = "visible";
  };
  // Touch is imprecise on small cells: it selects the nearest cell that has images.
  const near = (x, y, reach) => {
    let best = null, least = reach;
    for (const key of cells.keys()) {
      const [row, column] = key.split(",").map(Number);
      const away = Math.hypot(margin + (column + 0.5) * size - x, margin + (row + 0.5) * size - y);
      if (away < least) [best, least] = [[row, column], away];
    }
    return best;
  };
  const point = (event) => {
    const screen = matrix.getScreenCTM();
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(screen.inverse());
    const under = [Math.floor((place.y - margin) / size), Math.floor((place.x - margin) / size)];
    const broad = event.pointerType === "touch" && size * screen.a < 20 && !cells.has(under.join());
    const inside = Math.min(...under) >= 0 && Math.max(...under) < names.length;
    show(...((broad && inside && near(place.x, place.y, 16 / screen.a)) || under));
    return inside;
  };
  const choose = () => {
    if (cells.has(at.join())) matrix.dispatchEvent(new CustomEvent("choose", { detail: [names[at[0]], names[at[1]]] }));
  };
  let pressed = false;
  matrix.addEventListener("pointermove", point);
  matrix.addEventListener("pointerdown", (event) => { pressed = point(event); });
  matrix.addEventListener("click", () => { if (pressed) choose(); });
  matrix.addEventListener("focus", () => show(...at));
  matrix.addEventListener("point", (event) => show(...event.detail.map((name) => names.indexOf(name))));
  matrix.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose();
      return;
    }
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    show(at[0] + step[0], at[1] + step[1]);
    cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}
for (const button of document.querySelectorAll(".command button")) {
  if (!navigator.clipboard) { button.hidden = true; continue; }
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
