"""Images from people: dropped, pasted, photographed or among the samples; the last ones stay for the other pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import streamlit as st

from thirtytwo.app.settings import IMAGE_MB
from thirtytwo.images.decode import load_image
from thirtytwo.text import as_markdown

SAMPLES = Path(__file__).with_name("samples")
TYPES = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"]
UPLOAD, CAMERA, TRY = "Drop or paste", "Camera", "Samples"
_HELD = "images"
_THUMBNAIL = 108

PASTE = """
export default function () {
  const onPaste = (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    const input = document.querySelector(".st-key-paste-here input[type=file]");
    if (!files.length || !input) return;
    const held = new DataTransfer();
    files.forEach((file, index) => {
      const kind = file.type.split("/")[1].split("+")[0].replace("jpeg", "jpg");
      const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
      held.items.add(new File([file], `pasted ${time}${index ? ` ${index + 1}` : ""}.${kind}`, { type: file.type }));
    });
    input.files = held.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    event.preventDefault();
  };
  document.addEventListener("paste", onPaste);
  return () => document.removeEventListener("paste", onPaste);
}
"""
"""Hands pasted images to the uploader on the page, which has no way of its own for them."""


@dataclass(frozen=True, eq=False)
class InputImage:
    """An encoded image and what to call it."""

    name: str
    data: bytes

    @cached_property
    def digest(self) -> str:
        """Equal for equal bytes."""
        return blake2b(self.data, digest_size=12).hexdigest()


class Uploaded(Protocol):
    """What Streamlit hands over of a file."""

    name: str

    def getvalue(self) -> bytes: ...


def image_input() -> list[InputImage]:
    """Ask for images; those given last, on whatever page."""
    way = st.segmented_control(
        "Images from",
        [UPLOAD, CAMERA, TRY],
        default=UPLOAD,
        required=True,
        key="way",
        label_visibility="collapsed",
        persist_state="session",
    )
    if way == CAMERA:
        st.camera_input("Take an image", key="camera", on_change=_take, args=("camera",))
    elif way == TRY:
        _samples()
    else:
        drop("Images", "upload", _take, help="Nothing leaves this computer.")
    images = held()
    if images:
        _kept(images)
    return images


def drop(label: str, key: str, on_change: Any, args: Sequence[Any] = (), *, help: str | None = None) -> None:
    """A field that takes many images, pasted ones too where it is the only such field of the page."""
    container = st.container(key="paste-here" if key == "upload" else None)
    with container:
        st.file_uploader(
            as_markdown(label),
            type=TYPES,
            accept_multiple_files=True,
            key=key,
            on_change=on_change,
            args=(key, *args),
            max_upload_size=IMAGE_MB,
            help=help,
            label_visibility="collapsed" if key == "upload" else "visible",
        )
    if key == "upload":
        _paste()(key="paste", height=1)


def as_images(files: Iterable[Uploaded]) -> list[InputImage]:
    """Uploads as images; one that came twice is told apart by a number."""
    taken: set[str] = set()
    images = []
    for file in files:
        path, number = Path(file.name), 2
        name = file.name
        while name in taken:
            name, number = f"{path.stem} ({number}){path.suffix}", number + 1
        taken.add(name)
        images.append(InputImage(name, file.getvalue()))
    return images


def held() -> list[InputImage]:
    """The images given last."""
    images: list[InputImage] = st.session_state.get(_HELD, [])
    return images


def hold(images: Sequence[InputImage]) -> None:
    """Let pages work on these."""
    st.session_state[_HELD] = list(images)


def sample_files() -> list[Path]:
    """The images that come along."""
    return sorted(SAMPLES.glob("*.jpg"))


def _take(key: str) -> None:
    """What is in a field now becomes what pages work on."""
    given = st.session_state[key]
    files = given if isinstance(given, list) else [given] if given is not None else []
    if key == "camera":
        hold([InputImage("camera.jpg", file.getvalue()) for file in files])
    else:
        hold(as_images(files))


def _samples() -> None:
    files = sample_files()
    with st.container(horizontal=True, key="samples", gap="small"):
        for file in files:
            with st.container(width=_THUMBNAIL, gap="small"):
                image = InputImage(file.name, file.read_bytes())
                st.image(load_image(image.data, 2 * _THUMBNAIL).pixels, alt=file.stem, width="stretch")
                st.button(
                    as_markdown(file.stem), key=f"sample-{file.stem}", width="stretch", on_click=hold, args=([image],)
                )
    everything = [InputImage(file.name, file.read_bytes()) for file in files]
    st.button("All of them", key="sample-all", on_click=hold, args=(everything,))


def _kept(images: Sequence[InputImage]) -> None:
    """Say what is worked on where the page's own field does not show it."""
    shown = st.session_state.get("upload") or ([st.session_state["camera"]] if st.session_state.get("camera") else [])
    if len(shown) == len(images):
        return
    names = ", ".join(image.name for image in images[:3]) + (" …" if len(images) > 3 else "")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Working on {as_markdown(names)}")
        st.button("Clear", key="clear", type="tertiary", on_click=hold, args=([],))


@st.cache_resource(show_spinner=False)
def _paste() -> Any:
    return st.components.v2.component("thirtytwo_paste", js=PASTE)
