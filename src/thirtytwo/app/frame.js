// Around every page: the way back to the top, hints where something scrolls sideways, and what to do when the app stopped.
const STOPPED = "Connection error"; // Streamlit's title
const SCROLLERS = ".tt-wide, [data-testid=stDataFrame]";
const SCREENS = 1.2; // after so many screens, the way back to the top is offered

export default function ({ data }) {
  window.thirtytwoFrame ??= start();
  window.thirtytwoFrame(data);
}

function start() {
  let known = {};
  keepHistoryShort();
  const top = addTopButton();
  const look = () => {
    top.hidden = (main()?.scrollTop ?? 0) < SCREENS * window.innerHeight;
    document.querySelectorAll(SCROLLERS).forEach(markScroller);
    document.querySelectorAll("[data-testid=stMain] pre").forEach((code) => {
      if (code.scrollWidth > code.clientWidth) code.tabIndex = 0; // so that the keyboard can scroll it
    });
    markTheme();
    keepFocus();
    explainStop(known.stopped);
    document.querySelectorAll("[data-testid=stException]").forEach((box) => explainError(box, known.failed));
  };
  document.addEventListener("click", (event) => {
    const place = event.target.closest?.("[data-tt-jump]")?.dataset.ttJump;
    if (place) jumpTo(document.querySelector(`.${CSS.escape(place)}`));
  });
  let waiting = 0;
  const soon = () => {
    waiting ||= window.setTimeout(() => { waiting = 0; look(); }, 120);
  };
  document.addEventListener("scroll", soon, { capture: true, passive: true });
  window.addEventListener("resize", soon);
  new MutationObserver(soon).observe(document.body, { childList: true, subtree: true, characterData: true });
  const app = document.querySelector("[data-testid=stApp]");
  new MutationObserver(soon).observe(app, { attributes: true, attributeFilter: ["class"] }); // another theme
  return (data) => {
    const changed = known.page !== undefined && known.page !== data.page;
    known = data;
    if (changed) main()?.scrollTo({ top: 0 });
    markPage(data.page);
    soon();
  };
}

// The app notes in the address what is on the page, such as its images. That is no step that Back should lead to, so it
// replaces the address; other pages, and one model on the page Models, are steps.
function keepHistoryShort() {
  const push = window.history.pushState.bind(window.history);
  const model = (address) => address.searchParams.get("model");
  window.history.pushState = (state, title, target) => {
    const [from, to] = [new URL(location.href), new URL(target ?? location.href, location.href)];
    const isStep = from.pathname !== to.pathname || model(from) !== model(to);
    if (isStep) push(state, title, target);
    else window.history.replaceState(state, title, target);
  };
}

// When the last thumbnail of a list was removed by the keyboard, the focus goes on to the button that brings it back.
function keepFocus() {
  const left = window.thirtytwoLeft;
  if (!left || document.querySelector(`.st-key-${CSS.escape(left.key)} li`)) return;
  const old = Date.now() - left.time > 10000;
  const undo = document.querySelector(`.st-key-${CSS.escape(left.undo)} button`);
  if (undo && document.activeElement === document.body) undo.focus();
  if (undo || old) window.thirtytwoLeft = null;
}

const main = () => document.querySelector("[data-testid=stMain]");

// The links to the pages, which phones show, say which page is open, as the links in the header do.
function markPage(page) {
  const menu = document.querySelector(".st-key-pages");
  menu?.setAttribute("role", "navigation");
  menu?.setAttribute("aria-label", "Pages");
  for (const link of menu?.querySelectorAll("a") ?? []) {
    const path = link.getAttribute("href").replace(/^\.?\/+$/, "");
    if (!path) link.setAttribute("href", "./"); // Streamlit leaves the address of the first page empty
    if (path.split("/").pop() === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function markTheme() {
  const color = getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor;
  const sum = color.match(/\d+/g).slice(0, 3).reduce((total, part) => total + Number(part), 0);
  document.documentElement.toggleAttribute("data-tt-dark", sum < 384);
}

function addTopButton() {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "tt-to-top", textContent: "↑", hidden: true, title: "Back to top" });
  button.setAttribute("aria-label", "Back to top");
  button.onclick = () => {
    main()?.scrollTo({ top: 0, behavior: isStill() ? "instant" : "smooth" });
    const heading = document.querySelector("h1");
    heading?.setAttribute("tabindex", "-1");
    heading?.focus({ preventScroll: true });
  };
  document.querySelector("[data-testid=stApp]").append(button);
  return button;
}

function jumpTo(place) {
  if (!place) return;
  place.scrollIntoView({ behavior: isStill() ? "instant" : "smooth" });
  const heading = place.querySelector("h1, h2, h3");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}

const isStill = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

// An arrow at its right edge shows that a table or a matrix goes on there.
function markScroller(box) {
  const scroller = box.querySelector(".tt-scroll, .dvn-scroller");
  const hidden = scroller ? scroller.scrollWidth - scroller.clientWidth - scroller.scrollLeft : 0;
  box.classList.toggle("tt-more", hidden > 8);
}

// Streamlit's message about a lost connection speaks of Streamlit and the internet; the app needs neither.
function explainStop(texts) {
  if (!texts) return;
  const dialog = [...document.querySelectorAll("[role=dialog]")].find(
    (one) => one.dataset.ttStopped || one.textContent.trimStart().startsWith(STOPPED)
  );
  if (!dialog || dialog.querySelector(".tt-stopped-text")) return;
  dialog.dataset.ttStopped = "yes";
  const title = dialog.querySelector("h2");
  if (title) title.textContent = texts.title;
  const own = document.createElement("div");
  own.className = "tt-stopped-text";
  own.append(...texts.lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
  (title?.nextElementSibling ?? dialog).append(own);
}

// An error of the app itself: Streamlit's box names its own classes, and says nothing about what was entered.
function explainError(box, lines) {
  if (!lines || box.dataset.ttFailed) return;
  box.dataset.ttFailed = "yes";
  box.setAttribute("role", "alert");
  const own = document.createElement("div");
  own.className = "tt-failed-text";
  own.append(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
  box.append(own);
}
