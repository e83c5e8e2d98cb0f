// A click on an image of a gallery enlarges it: a larger copy where the page has one, with the square that the model sees.
{
  const within = ".gallery, .strip, .seen, .ends";
  const dialog = document.createElement("dialog");
  dialog.id = "enlarged";
  dialog.setAttribute("aria-labelledby", "enlarged-title");
  dialog.innerHTML = `<div class="bar"><div><h2 id="enlarged-title" tabindex="-1"></h2><p class="soft"></p></div>
    <div class="tools"><button type="button" data-step="-1">Previous</button><button type="button" data-step="1">Next</button><button type="button" data-close>Close</button></div></div>
    <div class="stage"><div class="frame"><img alt=""><div class="square" hidden></div></div></div>`;
  document.body.append(dialog);
  const [title, about, shown, square] = ["h2", "p", "img", ".square"].map((selector) => dialog.querySelector(selector));
  let tour = { images: [], at: 0 };
  const show = () => {
    const image = tour.images[tour.at];
    shown.src = image.dataset.large || image.src;
    shown.alt = image.alt;
    shown.className = image.classList.contains("pixel") ? "pixel" : "";
    shown.style.minWidth = "";
    title.textContent = image.alt || image.title;
    const caption = image.closest("figure")?.querySelector("figcaption");
    const words = caption ? [...caption.children].map((one) => one.textContent.trim()) : [image.title];
    about.textContent = [...new Set(words), image.dataset.note].filter((text) => text && text !== title.textContent).join(" · ");
    square.hidden = !image.dataset.square;
    square.style.cssText = image.dataset.square ?? "";
  };
  // A small copy would be blurred at the size of the others.
  shown.addEventListener("load", () => {
    const most = shown.className ? 560 : Math.min(560, 3 * shown.naturalWidth);
    shown.style.minWidth = `min(100cqw, 100cqh, ${most}px)`;
  });
  const open = (image) => {
    const images = [...image.closest(within).querySelectorAll("img")];
    tour = { images, at: images.indexOf(image) };
    show();
    dialog.showModal();
    title.focus();
  };
  const step = (by) => {
    tour.at = (tour.at + by + tour.images.length) % tour.images.length;
    show();
  };
  const enlargeable = (target) => (target.tagName === "IMG" && !dialog.contains(target) && target.closest(within) ? target : null);
  // Of many images in a row only the first is a stop of the keyboard: from there, Previous and Next lead to the others.
  for (const place of document.querySelectorAll(within)) {
    const first = place.querySelector("img");
    if (first) Object.assign(first, { tabIndex: 0 }).setAttribute("role", "button");
  }
  document.addEventListener("click", (event) => {
    const image = enlargeable(event.target);
    if (image) open(image);
  });
  document.addEventListener("keydown", (event) => {
    const image = event.key === "Enter" || event.key === " " ? enlargeable(event.target) : null;
    if (!image) return;
    event.preventDefault();
    open(image);
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.step) step(Number(button.dataset.step));
    if (event.target === dialog || button?.hasAttribute("data-close")) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation(); // else a viewer below would step, too
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  dialog.addEventListener("close", () => {
    shown.removeAttribute("src");
    const image = tour.images[tour.at];
    if (!image.hasAttribute("tabindex")) image.tabIndex = -1;
    image.focus();
  });
}
