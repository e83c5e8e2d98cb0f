// The viewer shows the images of a cell, a pair, a class or a superclass. A sprite is decoded on first use.
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
  // All stored images whose true and predicted class match, most confident first.
  const find = (wanted) => album.sprites.flatMap(({ images }, truth) => images.flatMap(([given, sure, inTruth, name], place) =>
    wanted(truth, given) ? [{ truth, given, sure, inTruth, name, place }] : [])).sort((a, b) => b.sure - a.sure);
  const part = (head, wanted) => ({ head, images: find(wanted), total: sum(wanted) });

  // The views: a title, and groups of images.
  const views = {
    cell: (row, column) => {
      const [truth, given] = [album.classes[row], album.classes[column]];
      return {
        title: row === column ? `${truth}, correct` : `${truth}, predicted as ${given}`,
        parts: [part("", (t, g) => t === row && g === column)],
      };
    },
    class: (index) => ({
      title: album.classes[index],
      parts: [
        part("Predicted as another class", (t, g) => t === index && g !== index),
        part(`Predicted as ${album.classes[index]}, but of another class`, (t, g) => t !== index && g === index),
        part("Correct", (t, g) => t === index && g === index),
      ],
    }),
    group: (row, column) => {
      const inside = (t, g) => groupOf(t) === row && groupOf(g) === column;
      if (row !== column) {
        return { title: `${album.groups[row]}, predicted as ${album.groups[column]}`, parts: [part("", inside)] };
      }
      return {
        title: album.groups[row],
        parts: [
          part("Wrong class, correct superclass", (t, g) => inside(t, g) && t !== g),
          part("Correct", (t, g) => inside(t, g) && t === g),
        ],
      };
    },
  };

  const sprites = new Map();
  const decoded = (index) => {
    if (!sprites.has(index)) {
      const sprite = new Image();
      sprite.src = album.sprites[index].source;
      sprites.set(index, sprite.decode().then(() => sprite));
    }
    return sprites.get(index);
  };
  const canvas = document.createElement("canvas");
  const crop = async (image, into) => {
    const sprite = await decoded(image.truth);
    const columns = album.sprites[image.truth].columns;
    const [left, top] = [image.place % columns, Math.floor(image.place / columns)];
    const { width, height } = album;
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").drawImage(sprite, left * width, top * height, width, height, 0, 0, width, height);
    into.src = canvas.toDataURL();
  };

  const named = (name) => (typeof name === "number" ? `row ${name}` : name);
  const share = (thousandths) => `${(thousandths / 10).toFixed(1)}\u00a0%`;
  const figure = (image) => {
    const [truth, given] = [album.classes[image.truth], album.classes[image.given]];
    const right = image.truth === image.given;
    const drawn = make("figure");
    if (album.sprites[image.truth].source) {
      const element = make("img");
      element.className = album.pixelated ? "pixel" : "";
      element.alt = right ? `${truth}, correct` : `${truth}, predicted as ${given}`;
      element.width = album.width;
      element.height = album.height;
      element.tabIndex = 0;
      element.setAttribute("role", "button");
      crop(image, element);
      drawn.append(element);
    }
    const answer = make("span", right ? "correct" : "predicted ");
    if (!right) answer.append(make("b", given));
    const sure = right ? share(image.sure) : `${share(image.sure)} / ${share(image.inTruth)}`;
    const name = make("small", named(image.name));
    name.className = "name";
    drawn.append(make("figcaption", "", make("span", truth), answer, make("small", sure), " ", name));
    return make("li", "", drawn);
  };
  const section = ({ head, images, total }) => {
    const drawn = make("section");
    const shown = images.length < total ? `, ${number(images.length)} included` : "";
    if (head) drawn.append(make("h3", `${head}: ${number(total)}${shown}`));
    if (!images.length) return drawn;
    const list = make("ol");
    list.className = "gallery";
    drawn.append(list);
    const more = make("button");
    more.type = "button";
    let next = 0;
    const fill = () => {
      list.append(...images.slice(next, next + atOnce).map(figure));
      next += atOnce;
      if (next >= images.length) more.remove();
      else more.textContent = `Show ${number(Math.min(atOnce, images.length - next))} more`;
    };
    more.addEventListener("click", fill);
    drawn.append(more);
    fill();
    return drawn;
  };

  // A tour is the list of views that Previous and Next step through, and the current position.
  let tour = { stops: [], at: 0, matrix: null };
  const show = () => {
    const [kind, ...which] = tour.stops[tour.at];
    const view = views[kind](...which);
    const [shown, total] = view.parts.reduce(([a, b], { images, total }) => [a + images.length, b + total], [0, 0]);
    title.textContent = view.title;
    const most = kind === "cell" && which[0] !== which[1] ? "the most confident" : "a sample";
    const all = shown === total ? `${number(total)} image${total === 1 ? "" : "s"}` : `${number(total)} images, ${number(shown)} included`;
    count.textContent = `${all}${shown < total && view.parts.length === 1 ? `, ${most}` : ""}. Percentages: confidence in the predicted class, and in the true class where it differs.`;
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
  viewer.addEventListener("close", () => { body.replaceChildren(); sprites.clear(); });
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
        row.querySelector("button.open").focus(); // focus returns here on closing
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
