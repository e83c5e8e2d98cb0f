"""Image input: dropped, pasted, from the camera or samples; thumbnails to remove images; a warning before leaving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from thirtytwo.app import left_out, photos
from thirtytwo.app.intake import Portion, take_in
from thirtytwo.app.library import Entry
from thirtytwo.app.originals import openable_input
from thirtytwo.app.photos import InputImage
from thirtytwo.app.problems import short
from thirtytwo.app.project_checks import repeated_sentence
from thirtytwo.app.session import Target
from thirtytwo.app.settings import IMAGE_MB
from thirtytwo.app.uploads import Uploaded, content, discard
from thirtytwo.images.discover import SUFFIXES, is_image
from thirtytwo.images.formats import FORMATS
from thirtytwo.images.render import as_uri
from thirtytwo.machine import cpu_count
from thirtytwo.text import as_markdown, counted

SAMPLES = Path(__file__).with_name("samples")
TYPES = sorted(suffix.lstrip(".") for suffix in SUFFIXES)
UPLOAD, CAMERA, SAMPLE = "Files", "Camera", "Samples"
THUMBNAILS_PER_PAGE = 48
FIELD = "image-field"
"""First words of the key of a field for images: the frame shortens its list of formats."""
_SAMPLE_WIDTH = 108
_PASTED = "You can also paste an image with Ctrl+V, or ⌘V on a Mac."
"""Is not shown on phones, which have no such keys."""
_CHUNK = 8
"""Number of uploaded images that are in memory at a time."""
_THREADS = 4

Receive = Callable[[list[tuple[str, bytes]]], None]
"""Takes names and contents of uploaded images."""

PASTE = """
export default function () {
  const onPaste = (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    const input = document.querySelector(".st-key-paste-here input[type=file]");
    if (!files.length || !input) return;
    const moved = new DataTransfer();
    files.forEach((file, index) => {
      const kind = file.type.split("/")[1].split("+")[0].replace("jpeg", "jpg");
      const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
      moved.items.add(new File([file], `pasted ${time}${index ? ` ${index + 1}` : ""}.${kind}`, { type: file.type }));
    });
    input.files = moved.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    event.preventDefault();
  };
  document.addEventListener("paste", onPaste);
  document.body.dataset.ttPaste = "ready";
  return () => {
    document.removeEventListener("paste", onPaste);
    delete document.body.dataset.ttPaste;
  };
}
"""
"""Script that passes pasted images to the uploader of the page, which does not support pasting."""

THUMBNAILS = """
export default function ({ data, parentElement, setTriggerValue }) {
  const list = parentElement.querySelector("ul");
  const shown = JSON.stringify([data.targets, data.images.map((image) => [image.digest, image.name, image.opens])]);
  list.trigger = setTriggerValue;
  if (list.dataset.shown === shown) return; // an open list of classes stays open
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const where = (element) => ({
    place: [...list.children].indexOf(element.closest("li")),
    kind: ["select", ".tt-open"].find((one) => element.matches(one)) ?? "button:not(.tt-open)",
  });
  const leave = (element) => {
    window.thirtytwoLeft = { ...where(element), key: data.key, undo: data.undo, time: Date.now() };
  };
  const left = window.thirtytwoLeft?.key === data.key ? window.thirtytwoLeft : null;
  const goal = focused ? where(focused) : left && document.activeElement === document.body ? left : null;
  if (left) window.thirtytwoLeft = null;
  list.dataset.shown = shown;
  list.setAttribute("aria-label", data.label);
  list.replaceChildren(...data.images.map((image) => {
    const item = document.createElement("li");
    if (image.source) {
      const shown = document.createElement("img");
      Object.assign(shown, { src: image.source, alt: image.name });
      const open = document.createElement("button");
      Object.assign(open, { type: "button", className: "tt-open", title: `Enlarge ${image.name}` });
      open.dataset.ttOpen = image.opens;
      open.append(shown);
      item.append(open);
    } else {
      const note = document.createElement("span");
      note.textContent = `${image.name}: ${image.note}`;
      note.title = image.problem;
      item.append(note);
      item.className = "tt-unreadable";
    }
    const remove = document.createElement("button");
    Object.assign(remove, { type: "button", textContent: "×", title: `Remove ${image.name}` });
    remove.setAttribute("aria-label", `Remove ${image.name}`);
    remove.onclick = () => { leave(remove); list.trigger("removed", image.digest); };
    item.append(remove);
    if (data.targets.length) {
      const move = document.createElement("select");
      move.append(new Option("Move to …", ""), ...data.targets.map((one) => new Option(one.name, one.number)));
      move.setAttribute("aria-label", `Move ${image.name} to another class`);
      move.onchange = () => {
        if (!move.value) return;
        leave(move);
        list.trigger("moved", { digest: image.digest, to: Number(move.value) });
      };
      item.append(move);
    }
    return item;
  }));
  if (goal) list.children[Math.min(goal.place, list.children.length - 1)]?.querySelector(goal.kind)?.focus();
}
"""
"""Script that shows thumbnails with a button each that removes the image, and lists of classes to move them to."""

LEAVE = """
export default function ({ data }) {
  window.thirtytwoUnsaved = data.unsaved;
  if (!window.thirtytwoWarns) {
    window.thirtytwoWarns = true;
    window.addEventListener("beforeunload", (event) => {
      if (!window.thirtytwoUnsaved) return;
      event.preventDefault();
      event.returnValue = "";
    });
  }
  return () => { window.thirtytwoUnsaved = false; };
}
"""
"""Script that lets the browser ask before the page is closed or reloaded, while there is something to lose."""


def image_input(entry: Entry | None = None) -> list[InputImage]:
    """Show the image input; return the current images, from whichever page they were added.

    `entry` is the model that is to classify them.
    """
    source = st.segmented_control(
        "Image source",
        [UPLOAD, CAMERA, SAMPLE],
        default=UPLOAD,
        required=True,
        key="way",
        label_visibility="collapsed",
        persist_state="session",
    )
    if source == CAMERA:
        _camera()
    elif source == SAMPLE:
        _show_samples()
    else:
        help = f"{FORMATS}. No data leaves this computer."
        if upload_field("Images", "upload", _receive, help=help, newest_first=True, rerun=False):
            photos.keep_images()
        st.html(f'<p class="tt-soft tt-keyboard">{_PASTED}</p>')
    return current_images(photos.CLASSIFIED, entry)


def current_images(place: str, entry: Entry | None = None) -> list[InputImage]:
    """Show the thumbnails of a list of images, with buttons to remove them and to undo that; return the images."""
    images = photos.current_images(place)
    if again := photos.repeated(place):
        st.info(as_markdown(repeated_sentence(again)), icon=":material/content_copy:")
    thumbnails(images, place, lambda digest: photos.remove_image(digest, place), entry, undo=f"undo-{place}")
    undoable = photos.undoable(place)
    if images or undoable:
        with st.container(horizontal=True, vertical_alignment="center"):
            if images:
                st.caption(
                    f"{counted(len(images), 'image')}, deleted an hour after you close this page", width="content"
                )
                clear = "Remove all images"
                st.button(clear, key=f"clear-{place}", type="tertiary", on_click=photos.clear_images, args=(place,))
            if undoable:
                undo_button(undoable, f"undo-{place}", partial(photos.undo, place))
    return images


def undo_button(what: str, key: str, undo: Callable[[], None]) -> None:
    """A button that undoes what a phrase says, which stands beside it."""
    st.button("Undo", key=key, icon=":material/undo:", on_click=undo)
    st.caption(as_markdown(what), width="content")


def upload_field(
    label: str,
    key: str,
    receive: Receive,
    *,
    project: Target | None = None,
    zip_field: str = "",
    help: str | None = None,
    newest_first: bool = False,
    rerun: bool = True,
) -> bool:
    """A field to upload several images; the field with the key `upload` also accepts pasted images.

    The field takes every file, because the content decides what is an image; what was left out is shown below it.
    `receive` gets the images in portions, the last ones first with `newest_first`, for lists that put new images in
    front. The field is empty afterwards: pages show what they received themselves. They are drawn anew, unless `rerun`
    is false because nothing above the field shows images: then true is returned once images were received.

    Notes on files that were left out stay with the `project`, if the images are for one. `zip_field` is what on this
    page takes ZIP files.
    """
    turn = st.session_state.setdefault(f"{key}-turn", 0)
    field = "paste-here" if key == "upload" else f"{FIELD}-{key}"
    with st.container(key=field):
        place = st.empty()
    files = _uploader(place, label, f"{key}-{turn}", help=help, labeled=key != "upload")
    if key == "upload":
        _paste_component()(key="paste", height=1)
    left_out.watch(key, field, project)
    note = st.empty()
    if not files:
        with note.container():
            left_out.show(key, project, zip_field)
        return False
    left_out.begin(key, project)
    take_in(_portions(files, key, receive, project, newest_first=newest_first))
    if rerun:
        st.rerun()
    _uploader(place, label, f"{key}-{turn + 1}", help=help, labeled=key != "upload")
    with note.container():
        left_out.show(key, project, zip_field)
    return True


def _uploader(place: Any, label: str, key: str, *, help: str | None, labeled: bool) -> list[Any]:
    found: list[Any] = place.file_uploader(
        as_markdown(label),
        accept_multiple_files=True,
        key=key,
        max_upload_size=IMAGE_MB,
        help=help,
        label_visibility="visible" if labeled else "collapsed",
    )
    return found


def thumbnails(
    images: Sequence[InputImage],
    key: str,
    remove: Callable[[str], None],
    entry: Entry | None = None,
    *,
    targets: Sequence[tuple[int, str]] = (),
    move: Callable[[str, int], None] | None = None,
    undo: str = "",
) -> None:
    """Show the thumbnails of images, each with a button that calls `remove` with its content hash.

    They open the photographs; with the square that a model sees, if `entry` is given. With `targets`, numbers and names
    of classes, each also has a list that calls `move` with its hash and a number. When the last one was removed, the
    button with the key `undo` gets the focus.
    """
    if not images:
        return
    pages = -(-len(images) // THUMBNAILS_PER_PAGE)
    first = 0
    if pages > 1:
        first = (st.pagination(pages, key=f"thumbnails-page-{key}-{pages}") - 1) * THUMBNAILS_PER_PAGE
    name = f"thumbnails-{key}"

    def removed() -> None:
        digest = st.session_state[name].get("removed")
        if digest:
            remove(digest)

    def moved() -> None:
        found = st.session_state[name].get("moved")
        if found and move is not None:
            move(str(found["digest"]), int(found["to"]))

    shown = images[first : first + THUMBNAILS_PER_PAGE]
    data = {
        "label": "Images",
        "key": name,
        "undo": undo,
        "targets": [{"number": number, "name": text} for number, text in targets],
        "images": [
            {
                "name": one.name,
                "digest": one.digest,
                "problem": one.problem,
                "note": short(one.problem),
                "source": _source(one),
                "opens": openable_input(one, entry),
            }
            for one in shown
        ],
    }
    _thumbnails_component()(key=name, data=data, on_removed_change=removed, on_moved_change=moved)


def warn_before_leaving(*, unsaved: bool) -> None:
    """Let the browser ask before the page is closed or reloaded, if there is something to lose."""
    _leave_component()(key="leave", data={"unsaved": unsaved}, height=1)


def sample_files() -> list[Path]:
    """The bundled sample images; of the last one the default model is not sure, because it has no class for it."""
    return sorted(SAMPLES.glob("*.jpg"))


def _portions(
    files: Sequence[Uploaded], key: str, receive: Receive, project: Target | None, *, newest_first: bool
) -> Iterator[Portion]:
    """Pass uploaded files on in portions, and delete each portion when it was taken; the field is then emptied."""

    def take(portion: Sequence[Uploaded]) -> None:
        found = [(file.name, content(file)) for file in portion]
        left_out.leave_out(key, [name for name, data in found if not is_image(name, data)], project)
        images = [(name, data) for name, data in found if is_image(name, data)]
        if images:
            receive(images)
        for file in portion:
            discard(file)

    def empty() -> None:
        st.session_state[f"{key}-turn"] += 1

    starts = range(0, len(files), _CHUNK)
    for start in reversed(starts) if newest_first else starts:
        portion = files[start : start + _CHUNK]
        yield Portion(len(portion), partial(take, portion))
    yield Portion(0, empty)


def _receive(files: list[tuple[str, bytes]], place: str = photos.CLASSIFIED) -> None:
    with ThreadPoolExecutor(cpu_count(_THREADS)) as pool:
        found = list(pool.map(lambda file: photos.from_upload(*file), files))
    photos.add_images(found, place)


def receive_for(place: str) -> Receive:
    """A function that adds uploaded images to a list."""
    return partial(_receive, place=place)


def _camera() -> None:
    turn = st.session_state.setdefault("camera-turn", 0)
    taken = st.camera_input("Take a photo", key=f"camera-{turn}")
    if taken is not None:
        _receive([("camera.jpg", content(taken))])
        discard(taken)
        st.session_state["camera-turn"] = turn + 1
        st.rerun()


def _show_samples() -> None:
    samples = _samples()
    with st.container(horizontal=True, key="samples", gap="small"):
        for image in samples:
            stem = Path(image.name).stem
            with st.container(width=_SAMPLE_WIDTH, gap="small"):
                st.image(image.thumbnail, alt=stem, width="stretch")
                st.button(
                    as_markdown(stem),
                    key=f"sample-{stem}",
                    width="stretch",
                    on_click=photos.add_images,
                    args=([image],),
                )
    st.button("All samples", key="sample-all", on_click=photos.add_images, args=(samples,))


@st.cache_resource(show_spinner=False)
def _samples() -> list[InputImage]:
    return [photos.from_file(path) for path in sample_files()]


def _source(image: InputImage) -> str:
    """The thumbnail as a data URI; empty if there is none."""
    return as_uri(image.thumbnail, "jpeg") if image.thumbnail else ""


@st.cache_resource(show_spinner=False)
def _paste_component() -> Any:
    return st.components.v2.component("thirtytwo_paste", js=PASTE)


@st.cache_resource(show_spinner=False)
def _thumbnails_component() -> Any:
    html = '<ul class="tt-thumbnails"></ul>'
    return st.components.v2.component("thirtytwo_thumbnails", html=html, js=THUMBNAILS, isolate_styles=False)


@st.cache_resource(show_spinner=False)
def _leave_component() -> Any:
    return st.components.v2.component("thirtytwo_leave", js=LEAVE)
