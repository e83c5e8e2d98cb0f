"""Images of a session: files on disk with thumbnails, kept across pages and for some time after it, and undo."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
import streamlit as st
from PIL import Image
from streamlit.runtime import exists, get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

from thirtytwo.app.file_store import UploadHandle, UploadStore
from thirtytwo.app.kept import KeptImages
from thirtytwo.app.problems import plain
from thirtytwo.errors import ImageError
from thirtytwo.images.decode import load_preview
from thirtytwo.images.header import read_header
from thirtytwo.io import free_name

CLASSIFIED = "images"
"""The list of images of the pages Classify and Compare."""
RESULTS = "results"
"""Key of the predictions of a session."""
QUERY = "images"
"""Parameter of the page's address that names the list of images, so that reloading shows it again."""
_IDENTITY = "identity of images"
GONE = "The images of this page were deleted: they are kept for an hour after it is closed, until the app stops."
THUMBNAIL = 176
"""Longer side of a thumbnail, in pixels; shown at half of it."""
MAX_PHOTOS, MAX_PHOTO_BYTES = 20_000, 16 << 30
"""Bounds of the files of all sessions on disk."""
_QUALITY = 80
_MUCH = 32 << 20
"""Memory to decode an image, in bytes, above which only one is decoded at a time."""
_decoding = Lock()
_MAX_UNDO = 20
_UNDO = "undo of images"


class _Content(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...


Named = TypeVar("Named", bound=_Content)
"""An image with a file name and a content hash."""


@dataclass(frozen=True)
class Inspected:
    """What is known of an encoded image: content hash, thumbnail as JPEG, and why it cannot be read, if so."""

    digest: str
    thumbnail: bytes
    problem: str


def content_hash(data: bytes) -> str:
    """The content hash of an encoded image."""
    return blake2b(data, digest_size=12).hexdigest()


def inspect(name: str, data: bytes) -> Inspected:
    """Check that an encoded image can be read, and make its thumbnail."""
    digest = content_hash(data)
    try:
        with _one_at_a_time(name, data):
            pixels = load_preview(data, THUMBNAIL, name)
    except ImageError as error:
        return Inspected(digest, b"", plain(str(error)))
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=_QUALITY)
    return Inspected(digest, stream.getvalue(), "")


def _one_at_a_time(name: str, data: bytes) -> AbstractContextManager[object]:
    """Let only one image be decoded at a time that needs much memory, as photographs do that are not JPEG.

    Raises:
        ImageError: the image cannot be read.
    """
    return _decoding if read_header(data, name).memory(THUMBNAIL) > _MUCH else nullcontext()


@dataclass(frozen=True, eq=False)
class InputImage:
    """An encoded image on disk.

    Attributes:
        name: its file name where it was uploaded from.
        path: its file here.
        digest: content hash of the file.
        thumbnail: JPEG with a longer side of at most `THUMBNAIL` pixels; empty if the image cannot be read.
        problem: why it cannot be read; empty if it can.
        handle: keeps an uploaded file on disk; None for files that stay there anyway.
    """

    name: str
    path: Path
    digest: str
    thumbnail: bytes = field(default=b"", repr=False)
    problem: str = ""
    handle: UploadHandle | None = field(default=None, repr=False)


def from_file(path: Path) -> InputImage:
    """An image that is a file on this computer, such as a sample."""
    found = inspect(path.name, path.read_bytes())
    return InputImage(path.name, path, found.digest, found.thumbnail, found.problem)


def from_upload(name: str, data: bytes) -> InputImage:
    """An uploaded image; its file is deleted when it is no longer referenced."""
    found = inspect(name, data)
    handle = photo_store().add(data, Path(name).suffix.lower()[:8])
    return InputImage(name, handle.path, found.digest, found.thumbnail, found.problem, handle)


@st.cache_resource(show_spinner=False)
def photo_store() -> UploadStore:
    """The uploaded images of all sessions; deleted when the process ends."""
    return UploadStore(MAX_PHOTOS, MAX_PHOTO_BYTES)


def current_images(place: str = CLASSIFIED) -> list[InputImage]:
    """The images of a list, newest upload first."""
    images: list[InputImage] = st.session_state.get(place, [])
    return images


def add_images(new: Iterable[InputImage], place: str = CLASSIFIED) -> None:
    """Add images to a list; `repeated` says which of them are there already."""
    present, new = current_images(place), list(new)
    noted = [
        *st.session_state.get(_repeated(place), []),
        *repetitions(present, ((one.name, one.digest) for one in new)),
    ]
    st.session_state[place], st.session_state[_repeated(place)] = merge(present, new), noted


def repeated(place: str = CLASSIFIED) -> list[tuple[str, str]]:
    """Images that were to be added to a list but are in it already, once: their name, and the name there."""
    found: list[tuple[str, str]] = st.session_state.pop(_repeated(place), [])
    return found


def _repeated(place: str) -> str:
    return f"{place}-repeated"


def repetitions(present: Iterable[_Content], new: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """New images, given by name and content hash, that are present already or twice among them.

    Returns:
        Their name, and the name of the image with the same content.
    """
    known = {one.digest: one.name for one in present}
    found = []
    for name, digest in new:
        if digest in known:
            found.append((name, known[digest]))
        known.setdefault(digest, name)
    return found


def merge(images: Sequence[InputImage], new: Iterable[InputImage]) -> list[InputImage]:
    """New images in their order, but those that are there already, then the others; repeated names get a number."""
    return [*unseen(images, new, lambda image, name: replace(image, name=name)), *images]


def unseen(present: Sequence[Named], new: Iterable[Named], rename: Callable[[Named, str], Named]) -> list[Named]:
    """The new images whose content is not present yet, once each; repeated names get a number."""
    known, taken = {one.digest for one in present}, {one.name.casefold() for one in present}
    added = []
    for image in new:
        if image.digest not in known:
            name = free_name(image.name, taken)
            known.add(image.digest)
            taken.add(name.casefold())
            added.append(image if name == image.name else rename(image, name))
    return added


def remove_image(digest: str, place: str = CLASSIFIED) -> None:
    """Remove an image from a list; can be undone."""
    kept = [one for one in current_images(place) if one.digest != digest]
    gone = [one for one in current_images(place) if one.digest == digest]
    if gone:
        _remember(place, f"{gone[0].name} was removed")
        st.session_state[place] = kept


def clear_images(place: str = CLASSIFIED) -> None:
    """Remove all images from a list; can be undone."""
    count = len(current_images(place))
    _remember(place, f"{count} images were removed" if count > 1 else "1 image was removed")
    st.session_state[place] = []


def undoable(place: str = CLASSIFIED) -> str:
    """What `undo` would undo, as a phrase; empty if there is nothing."""
    stack = _stack(place)
    return stack[-1][0] if stack else ""


def undo(place: str = CLASSIFIED) -> None:
    """Bring back the images that were removed last; images added since then stay."""
    stack = _stack(place)
    if stack:
        earlier, images = stack.pop()[1], current_images(place)
        known = {one.digest for one in earlier}
        st.session_state[place] = [*(one for one in images if one.digest not in known), *earlier]


def keep_images() -> None:
    """Keep the images and predictions of this session for when the page is reloaded; called at the start of a run.

    A new session gets those that the address of its page names: see `KeptImages`.
    """
    context = get_script_run_ctx()
    if context is None:
        return
    if _IDENTITY not in st.session_state:
        wanted = st.query_params.get(QUERY, "")
        identity, found = kept_images().take(wanted, context.session_id)
        st.session_state[_IDENTITY] = identity
        if wanted and found is None:
            st.toast(GONE, icon=":material/delete:")
        if found is not None:
            st.session_state[CLASSIFIED], st.session_state[RESULTS] = list(found.images), found.results
    identity = st.session_state[_IDENTITY]
    images = current_images()
    kept_images().put(identity, context.session_id, images, st.session_state.setdefault(RESULTS, {}))
    if not images:
        st.query_params.pop(QUERY, None)
    elif st.query_params.get(QUERY) != identity:
        st.query_params[QUERY] = identity


@st.cache_resource(show_spinner=False)
def kept_images() -> KeptImages:
    """The images of all sessions, and of those that ended less than an hour ago."""
    return KeptImages(_is_active)


def _is_active(session: str) -> bool:
    return exists() and get_instance().is_active_session(session)


def _stack(place: str) -> list[tuple[str, list[InputImage]]]:
    stacks: dict[str, list[tuple[str, list[InputImage]]]] = st.session_state.setdefault(_UNDO, {})
    return stacks.setdefault(place, [])


def _remember(place: str, what: str) -> None:
    stack = _stack(place)
    stack.append((what, current_images(place)))
    del stack[:-_MAX_UNDO]
