"""Originals: a click on an image opens the photograph, with the part that the model sees and a heatmap over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image

from thirtytwo.app.display import heat_method, heatmap_of
from thirtytwo.app.file_store import UploadHandle
from thirtytwo.app.library import Entry, info_of, load_classifier
from thirtytwo.app.media import serve
from thirtytwo.app.photos import InputImage, photo_store
from thirtytwo.app.problems import explained
from thirtytwo.errors import ThirtytwoError
from thirtytwo.explain.overlay import heat_layer, legend_colors
from thirtytwo.images.decode import load_image, load_preview
from thirtytwo.images.header import read_facts
from thirtytwo.images.pixels import Pixels, ResizeRule, seen_box
from thirtytwo.images.render import PIXELATED_SIDE, as_uri, is_pixelated, jpeg, png
from thirtytwo.text import as_html, percent

SCRIPT, STYLE = (Path(__file__).with_name(f"viewer.{kind}") for kind in ("js", "css"))
LARGEST = 4096
"""Longer side, in pixels, to which images are reduced that browsers cannot show as they are."""
MAX_OPENABLE = 2000
"""Number of images of a page that can be opened."""
_QUALITY = 92
_SHOWN_BY_BROWSERS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
}
_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}
_OPENABLE, _OPENED, _FILE = "images to open", "opened image", "file of the opened image"
_KEY = "viewer"


@dataclass(frozen=True, eq=False)
class Original:
    """An image that can be opened.

    Attributes:
        name: its file name, or what describes it.
        source: its file, or a function that returns its pixels, uint8 `(H, W, 3)`, where it is not a file.
        caption: a line about it, such as the prediction.
        entry: the model that classified it; None: there is none, or it is not at hand.
        rule: how it is made square where there is no model; None: unknown.
        side: side of that square, in pixels.
        viewer: who sees that square, such as `The model`.
        heat: whether the heatmap is shown at once.
    """

    name: str
    source: Path | Callable[[], Pixels]
    caption: str = ""
    entry: Entry | None = None
    rule: ResizeRule | None = None
    side: int = 0
    viewer: str = "The model"
    heat: bool = False


def openable(original: Original, identity: str) -> str:
    """Let an image be opened until the page is drawn anew; returns the key of its button.

    Args:
        original: the image.
        identity: what distinguishes it from all other images, such as a content hash or a path.
    """
    about = (identity, original.entry and original.entry.path, original.caption, original.heat)
    key = blake2b("\n".join(map(str, about)).encode(), digest_size=10).hexdigest()
    listed: dict[str, Original] = st.session_state.setdefault(_OPENABLE, {})
    listed.pop(key, None)
    listed[key] = original
    for old in list(listed)[: max(0, len(listed) - MAX_OPENABLE)]:
        del listed[old]
    return key


def openable_input(image: InputImage, entry: Entry | None = None, caption: str = "", *, heat: bool = False) -> str:
    """Let an uploaded image be opened, as `openable` does; images that cannot be read have no key."""
    if image.problem:
        return ""
    return openable(Original(image.name, image.path, caption, entry, heat=heat), image.digest)


def opening(html: str, key: str, name: str) -> str:
    """An image as HTML, in a button that opens the image with this key; the image alone where the key is empty."""
    if not key:
        return html
    return f'<button type="button" class="tt-open" data-tt-open="{key}" title="Enlarge {as_html(name)}">{html}</button>'


def begin() -> None:
    """Forget the images of the page that was shown before."""
    for key in (_OPENABLE, _OPENED, _FILE):
        st.session_state.pop(key, None)


@dataclass
class _Opened:
    """The image that is open: its key, whether its heatmap was asked for, and a number that changes with each click."""

    key: str
    heat: bool = False
    turn: int = field(default=0)


@st.fragment  # opening an image does not draw the page anew
def show_viewer() -> None:
    """Add the viewer to the page: it opens images when they are clicked."""

    def asked() -> None:
        wanted = st.session_state[_KEY].get("asked")
        if wanted:
            before: _Opened | None = st.session_state.get(_OPENED)
            turn = 0 if before is None else before.turn
            st.session_state[_OPENED] = _Opened(str(wanted["key"]), bool(wanted["heat"]), turn + 1)

    opened: _Opened | None = st.session_state.get(_OPENED)
    data = {} if opened is None else _described(opened)
    _component()(key=_KEY, data=data | {"legend": legend_colors()}, on_asked_change=asked, height=1)


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    return st.components.v2.component("thirtytwo_viewer", js=SCRIPT.read_text(encoding="utf-8"), isolate_styles=False)


def _described(opened: _Opened) -> dict[str, Any]:
    """What the script shows of an image; only its problem where it cannot be shown."""
    answer: dict[str, Any] = {"key": opened.key, "turn": opened.turn}
    original: Original | None = st.session_state.get(_OPENABLE, {}).get(opened.key)
    if original is None:
        return answer | {"problem": "This image is no longer on the page."}
    try:
        answer |= _file(original) if isinstance(original.source, Path) else _pixels(original)
        answer |= {"name": original.name, "caption": original.caption}
        return answer | _seen(original, answer["width"], answer["height"]) | _heat(original, opened, answer)
    except ThirtytwoError as error:
        return answer | {"problem": explained(error)}
    except OSError:
        return answer | {"problem": f"The file of {original.name} cannot be read."}


def _file(original: Original) -> dict[str, Any]:
    """Address, width and height of a file: of its own, or of a copy where browsers cannot show it."""
    path = original.source
    assert isinstance(path, Path)
    facts = read_facts(path, original.name)
    width, height = facts.upright
    kind = _SHOWN_BY_BROWSERS.get(facts.format, "")
    upright = facts.orientation == 1 or facts.format == "JPEG"  # browsers turn those upright
    if not (kind and upright and facts.mode in _MODES):
        copy = _converted(path, original.name)
        st.session_state[_FILE] = copy
        path, kind = copy.path, "image/jpeg"
    pixelated = max(width, height) <= PIXELATED_SIDE
    return {"source": serve(path, kind, _KEY), "width": width, "height": height, "pixelated": pixelated}


def _converted(path: Path, name: str) -> UploadHandle:
    """A JPEG copy of an image, which exists while the result is referenced."""
    return photo_store().add(jpeg(load_preview(path, LARGEST, name), _QUALITY), ".jpg")


def _pixels(original: Original) -> dict[str, Any]:
    """An image that is not a file, with its width and height."""
    assert not isinstance(original.source, Path)
    pixels = original.source()
    height, width = pixels.shape[:2]
    return {
        "source": as_uri(png(pixels), "png"),
        "width": width,
        "height": height,
        "pixelated": is_pixelated(pixels),
        "decoded": True,
    }


def _seen(original: Original, width: int, height: int) -> dict[str, Any]:
    """The square that the model sees, as shares of width and height, and a sentence about it."""
    rule, side = original.rule, original.side
    if original.entry is not None:
        info = info_of(original.entry)
        rule, side = info.resize, info.input_size
    if rule is None:
        return {}
    left, top, right, bottom = seen_box(width, height, rule)
    at = {"square": [left / width, top / height, (right - left) / width, (bottom - top) / height]}
    what, size = original.viewer, f"{side}×{side} pixels"
    if width == height:
        return at | {"note": f"{what} sees the whole image at {size}."}
    if rule == "crop":
        lost = percent(1 - min(width, height) / max(width, height), 0)
        return at | {
            "note": f"{what} sees the marked square at {size}. The ends, {lost} of the longer side, are cut off."
        }
    how = "squeezed into a square of" if rule == "squash" else "with black borders, in a square of"
    return at | {"note": f"{what} sees the whole image, {how} {size}."}


def _heat(original: Original, opened: _Opened, answer: dict[str, Any]) -> dict[str, Any]:
    """The heatmap, if it was asked for, and how it is computed."""
    if original.entry is None:
        return {}
    classifier = load_classifier(original.entry)
    found = {"heatable": True, "heatNote": heat_method(classifier)}
    if not opened.heat and not original.heat:
        return found
    info = classifier.info
    source = original.source if isinstance(original.source, Path) else Image.fromarray(original.source())
    pixels = load_image(source, info.input_size, info.resize, original.name).pixels
    heat = heatmap_of(original.entry, classifier, pixels)
    layer = heat_layer(heat, answer["width"], answer["height"], info.resize)
    return found | {"heat": as_uri(png(layer), "png")}
