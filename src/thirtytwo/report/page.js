"use strict";
// Tables sort by the column whose heading is pressed; a cell's data-v is what it sorts by.
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
// The confusion matrix tells the cell under the pointer, the finger, or the arrow keys.
for (const matrix of document.querySelectorAll("svg.matrix")) {
  const names = JSON.parse(matrix.dataset.names);
  const cells = new Map([...matrix.querySelectorAll("[data-at]")].map((cell) => [cell.dataset.at, cell]));
  const readout = document.getElementById("readout");
  const cursor = matrix.querySelector(".cursor");
  const size = Number(cursor.getAttribute("width"));
  const margin = Number(cursor.dataset.margin);
  let at = [0, 0];
  const show = (row, column) => {
    if (row < 0 || column < 0 || row >= names.length || column >= names.length) return;
    at = [row, column];
    const cell = cells.get(`${row},${column}`);
    readout.textContent = cell ? cell.querySelector("title").textContent : `${names[row]} called ${names[column]}: never`;
    cursor.setAttribute("x", margin + column * size);
    cursor.setAttribute("y", margin + row * size);
    cursor.style.visibility = "visible";
  };
  const point = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.getScreenCTM().inverse());
    show(Math.floor((place.y - margin) / size), Math.floor((place.x - margin) / size));
  };
  matrix.addEventListener("pointermove", point);
  matrix.addEventListener("pointerdown", point);
  matrix.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    show(at[0] + step[0], at[1] + step[1]);
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
