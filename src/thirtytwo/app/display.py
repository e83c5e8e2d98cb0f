"""Rendering of images: at display size, as model input, and with a heatmap overlay."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import streamlit as st
from PIL import Image

from thirtytwo.app.images import InputImage
from thirtytwo.app.library import Entry, load_classifier
from thirtytwo.explain.explainer import as_heat
from thirtytwo.explain.methods import maps_side
from thirtytwo.explain.occlusion import occlusion_maps
from thirtytwo.explain.overlay import on_picture, overlay, to_look_at
from thirtytwo.images.decode import decode, load_image
from thirtytwo.inference.classifier import Classifier

SIDE = 360
"""Longer side of a displayed image, in pixels."""
_MAX_PIXELATED = 64  # longer side up to which images are encoded losslessly

Pixels = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Rendered:
    """An image for display uint8 `(H, W, 3)`, optionally with a heatmap, and the model's input `(S, S, 3)`."""

    image: Pixels
    model_input: Pixels


def render(entry: Entry, image: InputImage, *, heat: bool) -> Rendered:
    """Render a readable image."""
    classifier = load_classifier(entry)
    info = classifier.info
    displayed = view(image.data)
    loaded = load_image(image.data, info.input_size, info.resize)
    if heat:
        heatmap = _heatmap(entry.stamp, image.digest, classifier, loaded.pixels)
        displayed = overlay(displayed, on_picture(heatmap, displayed.shape[0], displayed.shape[1], info.resize))
    return Rendered(displayed, loaded.pixels)


def view(data: bytes) -> Pixels:
    """The upright image for display, uint8 `(H, W, 3)`: large images are reduced, small ones enlarged."""
    loaded = load_image(data, SIDE, "squash")  # decodes large JPEGs at reduced size
    longer = max(loaded.width, loaded.height)
    if longer <= SIDE:
        return to_look_at(decode(data), least=min(SIDE, 8 * longer), most=SIDE)
    scale = SIDE / longer
    size = (max(1, round(scale * loaded.width)), max(1, round(scale * loaded.height)))
    return np.asarray(Image.fromarray(loaded.pixels).resize(size, Image.Resampling.LANCZOS))


def heat_method(classifier: Classifier) -> str:
    """Describe the heatmap method used for this model."""
    if maps_side(classifier) > 1:
        return "Heatmap: evidence for the top class in the network's last feature maps."
    return "Heatmap: decrease of the top class's confidence when a region is hidden. This takes a moment per image."


def uri(pixels: Pixels) -> str:
    """Encode pixels as a data URI: PNG for small images, JPEG for larger ones."""
    if max(pixels.shape[:2]) <= _MAX_PIXELATED:
        return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def png(pixels: Pixels) -> bytes:
    """Encode pixels as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


@st.cache_data(show_spinner="Computing the heatmap …", max_entries=500)
def _heatmap(stamp: tuple[str, int, int], digest: str, _classifier: Classifier, _pixels: Pixels) -> Heat:
    """Heatmap of the top class, float32 `(S, S)`, computed without PyTorch."""
    batch = _pixels[None]
    if maps_side(_classifier) > 1:
        raw = _classifier.run(batch, ("heatmaps",))["heatmaps"]
    else:
        top = _classifier.run(batch, ("logits",))["logits"].argmax(axis=1)
        raw = occlusion_maps(lambda occluded: _logits(_classifier, occluded), batch, top.astype(np.int64))
    heatmap: Heat = as_heat(np.nan_to_num(raw), len(_pixels))[0]
    return heatmap


def _logits(classifier: Classifier, pixels: Pixels, size: int = 32) -> npt.NDArray[np.float32]:
    parts = [
        classifier.run(pixels[start : start + size], ("logits",))["logits"] for start in range(0, len(pixels), size)
    ]
    return np.concatenate(parts)
