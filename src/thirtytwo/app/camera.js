// The camera of the page Add classes: preview, bursts of frames into a class, and live answers of the taught model.
const EVERY = 250; // milliseconds between the frames of a burst
const FRAMES = 5; // of a short press
const MOST = 40; // of a burst
const SIDE = 640; // longer side of a frame in pixels
const QUALITY = 0.85;
const LIVE_SIDE = 320;
const LIVE_EVERY = 400; // milliseconds between frames that are answered, at least
const PATIENCE = 8000; // milliseconds after which something unanswered is sent again

const ADVICE = {
  NotAllowedError: "The camera was not allowed. Allow it in the address bar of the browser, then start it again.",
  NotFoundError: "No camera was found. Connect one, then start it again.",
  NotReadableError: "The camera is in use by another program. Close that, then start it again.",
};
const INSECURE =
  "Browsers allow the camera only on this computer (http://localhost) or over https. Open the app on the computer on which it " +
  "runs, or put it behind a proxy with https. Images can be added as files.";

export default function (component) {
  const { parentElement } = component;
  window.thirtytwoCamera ??= create(); // goes on when the page draws its element anew
  window.thirtytwoCamera.show(parentElement, component);
  return () => window.thirtytwoCamera.leave(parentElement);
}

function create() {
  const part = (name) => root.querySelector(`[data-part=${name}]`);
  const canvas = document.createElement("canvas");
  let root, video, send, data, stream, burst, waiting, front = true, live = false, timer, leaving, spoken = "";
  const queue = []; // bursts that are not stored yet

  function say(text) {
    part("problem").textContent = text;
    part("problem").hidden = !text;
  }

  async function start() {
    say("");
    if (!navigator.mediaDevices?.getUserMedia) {
      say(window.isSecureContext ? "This browser gives no access to a camera." : INSECURE);
      return;
    }
    try {
      const wanted = { facingMode: front ? "user" : "environment", width: { ideal: 1280 }, height: { ideal: 720 } };
      const opened = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
      halt();
      stream = opened;
      video.srcObject = stream;
      await video.play();
      const devices = await navigator.mediaDevices.enumerateDevices();
      part("switch").hidden = devices.filter((one) => one.kind === "videoinput").length < 2;
    } catch (error) {
      say(ADVICE[error.name] ?? `The camera could not be started: ${error.message}`);
    }
    show();
  }

  function halt() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    if (video) video.srcObject = null;
  }

  function stop() {
    clearInterval(timer);
    clearInterval(burst?.timer);
    burst = timer = waiting = undefined;
    live = false;
    halt();
  }

  function capture(side) {
    const scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", QUALITY);
  }

  function begin(number) {
    if (!stream || burst || !video.videoWidth) return;
    burst = { id: crypto.getRandomValues(new Uint32Array(2)).join("-"), number, frames: [], held: true };
    burst.timer = setInterval(take, EVERY);
    take();
  }

  function take() {
    burst.frames.push(capture(SIDE));
    part("flash").textContent = `${burst.frames.length}`;
    part("flash").hidden = false;
    if (burst.frames.length >= (burst.held ? MOST : FRAMES)) finish();
  }

  function release() {
    if (!burst) return;
    burst.held = false;
    if (burst.frames.length >= FRAMES) finish();
  }

  function finish() {
    clearInterval(burst.timer);
    const { id, number, frames } = burst;
    queue.push({ id, number, frames });
    burst = undefined;
    part("flash").hidden = true;
    pass();
    show();
  }

  function pass() {
    const first = queue[0];
    if (!first || (first.sent && Date.now() - first.sent < PATIENCE)) return;
    first.sent = Date.now();
    send("burst", { id: first.id, number: first.number, frames: first.frames });
  }

  function tick() {
    if (queue.length) return pass();
    if (!live || !stream || burst || !video.videoWidth || document.hidden) return;
    const now = Date.now();
    if (waiting && now - waiting.sent < (waiting.answered ? LIVE_EVERY : PATIENCE)) return;
    waiting = { id: `${now}`, sent: now };
    send("frame", { id: waiting.id, frame: capture(LIVE_SIDE) });
  }

  function hold(button, number) {
    button.onpointerdown = (event) => {
      if (event.button) return;
      button.setPointerCapture(event.pointerId);
      begin(number);
    };
    button.onpointerup = button.onpointercancel = button.onlostpointercapture = release;
    button.oncontextmenu = (event) => event.preventDefault();
    button.onkeydown = (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      if (!event.repeat) begin(number);
    };
    button.onkeyup = (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      release();
    };
    button.onblur = release;
    button.onclick = (event) => {
      if (event.detail || burst) return; // of a pointer
      begin(number); // of an assistive technology
      release();
    };
  }

  function showClasses() {
    const place = part("classes");
    data.classes.forEach((one, position) => {
      let button = place.children[position];
      if (!button) {
        button = document.createElement("button");
        button.type = "button";
        button.append(document.createElement("b"), document.createElement("span"));
        place.append(button);
      }
      hold(button, one.number);
      button.firstChild.textContent = one.name;
      const adding = queue.filter((other) => other.number === one.number).reduce((sum, other) => sum + other.frames.length, 0);
      button.lastChild.textContent = adding ? `adding ${adding} …` : one.count === 1 ? "1 image" : `${one.count} images`;
      button.setAttribute("aria-label", `Hold to add images of ${one.name}`);
      button.disabled = !stream;
    });
    while (place.children.length > data.classes.length) place.lastChild.remove();
  }

  function showAnswer() {
    const place = part("answer");
    place.hidden = !live || !stream;
    const answer = data.answer;
    if (!answer || place.hidden) return;
    part("bars").replaceChildren(...answer.shares.flatMap(([name, text, share]) => {
      const [label, track, fill, value] = ["b", "span", "i", "em"].map((tag) => document.createElement(tag));
      label.textContent = name;
      track.className = "tt-track";
      fill.style.width = `${100 * share}%`;
      track.append(fill);
      value.textContent = text;
      return [label, track, value];
    }));
    part("top").textContent = answer.top;
    if (answer.top !== spoken) part("spoken").textContent = spoken = answer.top; // only changes are announced
  }

  function show() {
    part("start").textContent = stream ? "Stop the camera" : "Start the camera";
    part("view").hidden = part("hint").hidden = !stream;
    if (!stream) part("switch").hidden = true;
    video.classList.toggle("mirrored", front);
    part("live").hidden = !stream || !data.live;
    part("live").setAttribute("aria-pressed", `${live}`);
    part("live").textContent = live ? "Stop live answers" : "Live answers";
    showClasses();
    showAnswer();
  }

  function attach(element) {
    release();
    root = element;
    video = part("video");
    part("start").onclick = () => {
      if (!stream) return start();
      live = false;
      halt();
      show();
    };
    part("switch").onclick = () => {
      front = !front;
      start();
    };
    part("live").onclick = () => {
      live = !live;
      waiting = undefined;
      show();
    };
    if (stream) {
      video.srcObject = stream;
      video.play();
    }
  }

  return {
    leave(element) {
      clearTimeout(leaving);
      leaving = setTimeout(() => root === element && stop(), 1000); // unless it was drawn anew
    },
    show(element, component) {
      send = component.setTriggerValue;
      data = component.data;
      if (root !== element) attach(element);
      clearTimeout(leaving);
      timer ??= setInterval(tick, 100);
      const stored = queue.findIndex((one) => one.id === data.stored);
      if (stored >= 0) queue.splice(stored, 1);
      if (waiting && data.answer?.id === waiting.id) waiting.answered = true;
      if (!data.live) live = false;
      show();
      pass();
    },
  };
}
