// The viewer shows the pictures behind a cell, a pair, a class or a superclass. A sheet is decoded when it is opened.
{
  const album = JSON.parse(document.getElementById("album").textContent);
  const viewer = document.getElementById("viewer");
  const title = document.getElementById("viewer-title");
  const count = document.getElementById("viewer-count");
  const body = document.getElementById("viewer-body");
  const atOnce = 120;
  const number = (value) => value.toLocaleString("en");
  const make = (tag, text, ...children) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    element.append(...children);
    return element;
  };

  const sum = (wanted) => album.cells.reduce((total, [row, column, n]) => total + (wanted(row, column) ? n : 0), 0);
  const groupOf = (index) => album.group_of[index];
  // Every picture at hand whose true and given class are wanted, most confident first.
  const find = (wanted) => album.sheets.flatMap(({ pictures }, truth) => pictures.flatMap(([given, sure, inTruth, name], place) =>
    wanted(truth, given) ? [{ truth, given, sure, inTruth, name, place }] : [])).sort((a, b) => b.sure - a.sure);
  const part = (head, wanted) => ({ head, pictures: find(wanted), total: sum(wanted) });

  // What can be viewed: a title, and parts of pictures.
  const views = {
    cell: (row, column) => {
      const [truth, given] = [album.classes[row], album.classes[column]];
      return {
        title: row === column ? `${truth}, called right` : `${truth}, called ${given}`,
        parts: [part("", (t, g) => t === row && g === column)],
      };
    },
    class: (index) => ({
      title: album.classes[index],
      parts: [
        part("Called something else", (t, g) => t === index && g !== index),
        part(`Called ${album.classes[index]}, but are not`, (t, g) => t !== index && g === index),
        part("Right", (t, g) => t === index && g === index),
      ],
    }),
    group: (row, column) => {
      const inside = (t, g) => groupOf(t) === row && groupOf(g) === column;
      if (row !== column) {
        return { title: `${album.groups[row]}, called ${album.groups[column]}`, parts: [part("", inside)] };
      }
      return {
        title: album.groups[row],
        parts: [
          part("Wrong class, right superclass", (t, g) => inside(t, g) && t !== g),
          part("Right", (t, g) => inside(t, g) && t === g),
        ],
      };
    },
  };

  const sheets = new Map();
  const decoded = (index) => {
    if (!sheets.has(index)) {
      const image = new Image();
      image.src = album.sheets[index].source;
      sheets.set(index, image.decode().then(() => image));
    }
    return sheets.get(index);
  };
  const canvas = document.createElement("canvas");
  const cut = async (picture, into) => {
    const sheet = await decoded(picture.truth);
    const columns = album.sheets[picture.truth].columns;
    const [left, top] = [picture.place % columns, Math.floor(picture.place / columns)];
    const { width, height } = album;
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").drawImage(sheet, left * width, top * height, width, height, 0, 0, width, height);
    into.src = canvas.toDataURL();
  };

  const named = (name) => (typeof name === "number" ? `row ${name}` : name);
  const share = (thousandths) => `${(thousandths / 10).toFixed(1)}%`;
  const figure = (picture) => {
    const [truth, given] = [album.classes[picture.truth], album.classes[picture.given]];
    const right = picture.truth === picture.given;
    const drawn = make("figure");
    if (album.sheets[picture.truth].source) {
      const image = make("img");
      image.className = album.pixelated ? "pixel" : "";
      image.alt = right ? `${truth}, called right` : `${truth}, called ${given}`;
      image.width = album.width;
      image.height = album.height;
      cut(picture, image);
      drawn.append(image);
    }
    const answer = make("span", right ? "called right" : "called ");
    if (!right) answer.append(make("b", given));
    const sure = right ? share(picture.sure) : `${share(picture.sure)} / ${share(picture.inTruth)}`;
    const name = make("small", named(picture.name));
    name.className = "name";
    drawn.append(make("figcaption", "", make("span", truth), answer, make("small", sure), " ", name));
    return make("li", "", drawn);
  };
  const section = ({ head, pictures, total }) => {
    const drawn = make("section");
    const shown = pictures.length < total ? `, ${number(pictures.length)} of them here` : "";
    if (head) drawn.append(make("h3", `${head}: ${number(total)}${shown}`));
    if (!pictures.length) return drawn;
    const list = make("ol");
    list.className = "gallery";
    drawn.append(list);
    const more = make("button");
    more.type = "button";
    let next = 0;
    const fill = () => {
      list.append(...pictures.slice(next, next + atOnce).map(figure));
      next += atOnce;
      if (next >= pictures.length) more.remove();
      else more.textContent = `Show ${number(Math.min(atOnce, pictures.length - next))} more`;
    };
    more.addEventListener("click", fill);
    drawn.append(more);
    fill();
    return drawn;
  };

  // A tour is the list of views that Previous and Next walk, and where it began.
  let tour = { stops: [], at: 0, matrix: null };
  const show = () => {
    const [kind, ...which] = tour.stops[tour.at];
    const view = views[kind](...which);
    const [shown, total] = view.parts.reduce(([a, b], { pictures, total }) => [a + pictures.length, b + total], [0, 0]);
    title.textContent = view.title;
    const most = kind === "cell" && which[0] !== which[1] ? "the most confident" : "a sample";
    const all = shown === total ? `${number(total)} picture${total === 1 ? "" : "s"}` : `${number(total)} pictures, ${number(shown)} of them here`;
    count.textContent = `${all}${shown < total && view.parts.length === 1 ? `, ${most}` : ""}. Percentages: confidence in the answer, and in the truth where it was wrong.`;
    body.replaceChildren(...view.parts.filter((each) => each.total).map(section));
    viewer.scrollTop = 0;
    if (tour.matrix) {
      const names = kind === "group" ? album.groups : album.classes;
      tour.matrix.dispatchEvent(new CustomEvent("point", { detail: which.map((index) => names[index]) }));
    }
  };
  const open = (stops, chosen, matrix = null) => {
    tour = { stops, at: Math.max(0, stops.findIndex((stop) => stop.join() === chosen.join())), matrix };
    show();
    viewer.showModal();
    title.focus();
  };
  const step = (by) => {
    tour.at = (tour.at + by + tour.stops.length) % tour.stops.length;
    show();
  };

  for (const button of viewer.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", () => { body.replaceChildren(); sheets.clear(); });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });

  for (const matrix of document.querySelectorAll("svg.matrix")) {
    const names = JSON.parse(matrix.dataset.names);
    const [kind, known] = matrix.dataset.of === "groups" ? ["group", album.groups] : ["cell", album.classes];
    const index = names.map((name) => known.indexOf(name));
    const stops = [...matrix.querySelectorAll("[data-at]")].map((cell) => [kind, ...cell.dataset.at.split(",").map((at) => index[at])]);
    matrix.addEventListener("choose", (event) => open(stops, [kind, ...event.detail.map((name) => known.indexOf(name))], matrix));
  }
  const rows = (selector, stopOf, stopsOf) => {
    for (const row of document.querySelectorAll(selector)) {
      row.addEventListener("click", () => {
        row.querySelector("button.open").focus(); // where closing comes back to
        open(stopsOf(row), stopOf(row));
      });
    }
  };
  const ofClass = (row) => ["class", Number(row.dataset.class)];
  rows("tr[data-class]", ofClass, (row) => [...row.parentNode.rows].map(ofClass));
  const confusions = album.cells.filter(([row, column]) => row !== column).sort((a, b) => b[2] - a[2])
    .map(([row, column]) => ["cell", row, column]);
  rows("tr[data-cell]", (row) => ["cell", ...row.dataset.cell.split(",").map(Number)], () => confusions);
}
