// The map shows the image of the nearest point; the legend and the list pick out points.
{
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const map = document.querySelector("svg.map");
  const box = map.parentElement;
  const tip = document.getElementById("map-tip");
  const chosen = document.getElementById("map-chosen");
  const ring = document.getElementById("map-at");
  const [title, file, among] = tip.querySelectorAll("b, span");
  const large = tip.querySelector("img");
  const select = document.getElementById("map-class");
  const buttons = [...document.querySelectorAll(".chips button")];
  const all = data.points.map((_, place) => place);
  let active = all, step = -1;

  const hide = () => { tip.hidden = true; ring.setAttribute("d", ""); };
  const show = (place) => {
    const image = document.getElementById(`image-${place}`);
    if (!image) return hide();
    const [x, y] = data.points[place];
    large.src = image.src;
    large.className = image.className;
    title.textContent = data.classes[data.labels[place]];
    file.textContent = data.names[place];
    const other = data.other[place];
    among.textContent = other < 0 ? "" : `${data.votes[place]} of ${data.neighbors} neighbors: ${data.classes[other]}`;
    tip.hidden = false;
    const scale = box.clientWidth / 1000;
    const beside = x * scale + 16 + tip.offsetWidth < box.clientWidth ? x * scale + 14 : x * scale - 14 - tip.offsetWidth;
    const level = y * scale - tip.offsetHeight / 2;
    tip.style.left = `${Math.max(4, Math.min(beside, box.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(level, box.clientHeight - tip.offsetHeight - 4))}px`;
    const radius = 7 / scale;
    ring.setAttribute("d", `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`);
  };
  const nearest = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
    const reach = (event.pointerType === "touch" ? 28 : 16) * 1000 / box.clientWidth;
    let best = -1, least = reach;
    for (const one of active) {
      const away = Math.hypot(data.points[one][0] - place.x, data.points[one][1] - place.y);
      if (away < least) [best, least] = [one, away];
    }
    return best;
  };
  const point = (event) => {
    const place = nearest(event);
    if (place < 0) hide(); else show(place);
  };
  map.addEventListener("pointermove", point);
  map.addEventListener("pointerdown", point);
  map.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
  map.addEventListener("blur", hide);
  map.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by || !data.marked.length) return;
    event.preventDefault();
    step = (step + by + data.marked.length) % data.marked.length;
    show(data.marked[step]);
  });

  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const path = (places) => places.map((place) => `M${data.points[place].join(" ")}h0`).join("");
  // Points that a condition picks out are drawn again, on top of the others, which are dimmed.
  const pick = (wanted) => {
    active = wanted ? all.filter(wanted) : all;
    map.classList.toggle("dim", Boolean(wanted));
    chosen.replaceChildren();
    hide();
    if (!wanted) return;
    chosen.append(svg("path", { class: "rim", d: path(active.filter((place) => data.other[place] >= 0)) }));
    for (const group of new Set(active.map((place) => data.groups[data.labels[place]]))) {
      const d = path(active.filter((place) => data.groups[data.labels[place]] === group));
      chosen.append(svg("path", { style: `stroke:${data.colors[group]}`, d }));
    }
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === button && on));
      if (select) select.value = "";
      const group = Number(button.dataset.group);
      pick(on ? (place) => (group < 0 ? data.other[place] >= 0 : data.groups[data.labels[place]] === group) : null);
    });
  }
  select?.addEventListener("change", () => {
    for (const one of buttons) one.setAttribute("aria-pressed", "false");
    pick(select.value === "" ? null : (place) => data.labels[place] === Number(select.value));
  });
}
