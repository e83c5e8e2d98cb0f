"""Image input: dropped, pasted, from the camera or samples; the current images are kept across pages."""

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
from thirtytwo.images.discover import HEIC_SUFFIXES, IMAGE_SUFFIXES
from thirtytwo.io import free_name
from thirtytwo.text import as_markdown

SAMPLES = Path(__file__).with_name("samples")
TYPES = sorted(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES | HEIC_SUFFIXES)
UPLOAD, CAMERA, SAMPLE = "Drop or paste", "Camera", "Samples"
_IMAGES = "images"
_THUMBNAIL = 108

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
  return () => document.removeEventListener("paste", onPaste);
}
"""
"""Script that passes pasted images to the uploader of the page, which does not support pasting."""


@dataclass(frozen=True, eq=False)
class InputImage:
    """An encoded image and its name."""

    name: str
    data: bytes

    @cached_property
    def digest(self) -> str:
        """Content hash of the encoded image."""
        return blake2b(self.data, digest_size=12).hexdigest()


class Uploaded(Protocol):
    """The part of Streamlit's uploaded file that is used."""

    name: str

    def getvalue(self) -> bytes: ...


def image_input() -> list[InputImage]:
    """Show the image input; return the current images, from whichever page they were added."""
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
        st.camera_input("Take a photo", key="camera", on_change=_set_from_field, args=("camera",))
    elif source == SAMPLE:
        _show_samples()
    else:
        upload_field("Images", "upload", _set_from_field, help="No data leaves this computer.")
    images = current_images()
    if images:
        _show_current(images)
    return images


def upload_field(label: str, key: str, on_change: Any, args: Sequence[Any] = (), *, help: str | None = None) -> None:
    """A field to upload several images; the field with the key `upload` also accepts pasted images."""
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
        _paste_component()(key="paste", height=1)


def as_images(files: Iterable[Uploaded]) -> list[InputImage]:
    """Uploaded files as images; repeated names get a number."""
    taken: set[str] = set()
    images = []
    for file in files:
        name = free_name(file.name, taken)
        taken.add(name.casefold())
        images.append(InputImage(name, file.getvalue()))
    return images


def current_images() -> list[InputImage]:
    """The images that pages currently work on."""
    images: list[InputImage] = st.session_state.get(_IMAGES, [])
    return images


def set_images(images: Sequence[InputImage]) -> None:
    """Set the images that pages work on."""
    st.session_state[_IMAGES] = list(images)


def sample_files() -> list[Path]:
    """The bundled sample images."""
    return sorted(SAMPLES.glob("*.jpg"))


def _set_from_field(key: str) -> None:
    """Set the current images to those in a field."""
    uploaded = st.session_state[key]
    files = uploaded if isinstance(uploaded, list) else [uploaded] if uploaded is not None else []
    if key == "camera":
        set_images([InputImage("camera.jpg", file.getvalue()) for file in files])
    else:
        set_images(as_images(files))


def _show_samples() -> None:
    files = sample_files()
    with st.container(horizontal=True, key="samples", gap="small"):
        for file in files:
            with st.container(width=_THUMBNAIL, gap="small"):
                image = InputImage(file.name, file.read_bytes())
                st.image(load_image(image.data, 2 * _THUMBNAIL).pixels, alt=file.stem, width="stretch")
                st.button(
                    as_markdown(file.stem),
                    key=f"sample-{file.stem}",
                    width="stretch",
                    on_click=set_images,
                    args=([image],),
                )
    all_samples = [InputImage(file.name, file.read_bytes()) for file in files]
    st.button("All samples", key="sample-all", on_click=set_images, args=(all_samples,))


def _show_current(images: Sequence[InputImage]) -> None:
    """Show the names of the current images if the page's field does not show them."""
    shown = st.session_state.get("upload") or ([st.session_state["camera"]] if st.session_state.get("camera") else [])
    if len(shown) == len(images):
        return
    names = ", ".join(image.name for image in images[:3]) + (" …" if len(images) > 3 else "")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Current images: {as_markdown(names)}")
        st.button("Clear", key="clear", type="tertiary", on_click=set_images, args=([],))


@st.cache_resource(show_spinner=False)
def _paste_component() -> Any:
    return st.components.v2.component("thirtytwo_paste", js=PASTE)
