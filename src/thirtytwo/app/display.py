"""Images as they are shown: at a size to look at, as the model sees them, and with heat over them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import streamlit as st
from PIL import Image

from thirtytwo.app.images import InputImage
from thirtytwo.app.library import Entry, opened
from thirtytwo.explain.explainer import as_heat
from thirtytwo.explain.methods import maps_side
from thirtytwo.explain.occlusion import occlusion_maps
from thirtytwo.explain.overlay import on_picture, overlay, to_look_at
from thirtytwo.images.decode import decode, load_image
from thirtytwo.inference.classifier import Classifier

SIDE = 360
"""Longer side of an image that is shown, in pixels, unless it is smaller and has to be enlarged."""
_SHARP = 64

Pixels = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Drawn:
    """An image to look at uint8 `(H, W, 3)`, with heat over it if asked for, and what the model sees `(S, S, 3)`."""

    image: Pixels
    seen: Pixels


def drawn(entry: Entry, image: InputImage, *, heat: bool) -> Drawn:
    """How a readable image is shown."""
    classifier = opened(entry)
    info = classifier.info
    shown = view(image.data)
    loaded = load_image(image.data, info.input_size, info.resize)
    if heat:
        warmth = _heat(entry.stamp, image.digest, classifier, loaded.pixels)
        shown = overlay(shown, on_picture(warmth, shown.shape[0], shown.shape[1], info.resize))
    return Drawn(shown, loaded.pixels)


def view(data: bytes) -> Pixels:
    """The image upright and whole, uint8 `(H, W, 3)`: large ones reduced, pixel images enlarged."""
    loaded = load_image(data, SIDE, "squash")  # never holds more of a large JPEG than is needed
    longer = max(loaded.width, loaded.height)
    if longer <= SIDE:
        return to_look_at(decode(data), least=min(SIDE, 8 * longer), most=SIDE)
    scale = SIDE / longer
    size = (max(1, round(scale * loaded.width)), max(1, round(scale * loaded.height)))
    return np.asarray(Image.fromarray(loaded.pixels).resize(size, Image.Resampling.LANCZOS))


def heat_method(classifier: Classifier) -> str:
    """How heat is made for this model, in a sentence."""
    if maps_side(classifier) > 1:
        return "Heat: where the network's last maps speak most for the class named first."
    return "Heat: how much less sure the model is when that place is hidden. This takes a moment for each image."


def uri(pixels: Pixels) -> str:
    """Pixels as a data URI: PNG for small ones, which stay sharp, JPEG for photographs."""
    if max(pixels.shape[:2]) <= _SHARP:
        return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def png(pixels: Pixels) -> bytes:
    """Pixels as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


@st.cache_data(show_spinner="Looking where the model looks …", max_entries=500)
def _heat(stamp: tuple[str, int, int], digest: str, _classifier: Classifier, _pixels: Pixels) -> Heat:
    """Heat of the most probable class `(S, S)`; without PyTorch, whatever else is installed."""
    one = _pixels[None]
    if maps_side(_classifier) > 1:
        raw = _classifier.run(one, ("heatmaps",))["heatmaps"]
    else:
        top = _classifier.run(one, ("logits",))["logits"].argmax(axis=1)
        raw = occlusion_maps(lambda tried: _in_batches(_classifier, tried), one, top.astype(np.int64))
    heat: Heat = as_heat(np.nan_to_num(raw), len(_pixels))[0]
    return heat


def _in_batches(classifier: Classifier, pixels: Pixels, size: int = 32) -> npt.NDArray[np.float32]:
    parts = [classifier.run(pixels[at : at + size], ("logits",))["logits"] for at in range(0, len(pixels), size)]
    return np.concatenate(parts)
