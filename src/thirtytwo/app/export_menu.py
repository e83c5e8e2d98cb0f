"""The export menu of a model: its file, a smaller one, a web page, and code to copy."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from thirtytwo.app import photos
from thirtytwo.app.components import show_error
from thirtytwo.app.library import TAUGHT, Entry, info_of, load_classifier, projects
from thirtytwo.app.photos import InputImage
from thirtytwo.app.snippets import PYTHON, REST, SERVE
from thirtytwo.errors import ThirtytwoError
from thirtytwo.evaluation.calibration import is_calibrated
from thirtytwo.export.webpage import RUNTIME, SNIPPET, web_page
from thirtytwo.inference.classifier import Classifier, DecodedImage
from thirtytwo.inference.model_file import read_info
from thirtytwo.io import slug
from thirtytwo.text import counted, percent
from thirtytwo.text import size as file_size

if TYPE_CHECKING:
    from thirtytwo.export.quantize import Weights

_WEIGHTS: dict[str, Weights] = {"8 bits: about a quarter of the size": "int8", "16 bits: half the size": "float16"}
_WITH = "With thirtytwo, which is installed from a copy of its repository (with"
_MAX_COMPARED = 100
"""Number of images that a smaller file is compared with the original on."""
_WORTH = 0.9
"""Share of the original size from which a file is not called smaller."""


@dataclass(frozen=True)
class Smaller:
    """A model file with rounded weights."""

    data: bytes
    weights: Weights


@dataclass(frozen=True)
class Change:
    """How a smaller file differs from the original on `count` images.

    `same` of them have the same top class; `largest` is the largest difference of a probability.
    """

    count: int
    same: int
    largest: float

    @property
    def text(self) -> str:
        """The difference in a sentence."""
        return (
            f"On {counted(self.count, 'image')}, both files predict the same class for {self.same}; probabilities "
            f"differ by at most {percent(self.largest)}."
        )


def show_export(entry: Entry, key: str) -> None:
    """Show the export menu of a model; `key` is unique on the page."""
    names = ["Model file", "Web page", "Python", "JavaScript", "REST"]
    model, web, python, javascript, rest = st.tabs(names)
    with model:
        _show_file(entry, key)
    with web:
        _show_web_page(entry, key)
    with python:
        st.markdown(f"{_WITH} `pip install .` there), and the model file as `model.onnx` beside this code:")
        st.code(PYTHON, language="python")
    with javascript:
        st.markdown(
            "A page beside the files of the web page: download it first, and save this as `own.html` in its folder."
        )
        st.code(SNIPPET, language="html")
    with rest:
        st.markdown(f'{_WITH} `pip install ".[serve]"` there), and the model file as `model.onnx`, start a service:')
        st.code(SERVE, language="bash")
        st.markdown("It answers requests of any program with JSON, for example:")
        st.code(REST, language="bash")


def _show_file(entry: Entry, key: str) -> None:
    """Offer the model file, and a smaller one."""
    st.download_button(
        f"Download the model file ({file_size(entry.path.stat().st_size)})",
        entry.path.read_bytes,
        f"{slug(entry.name)}.onnx",
        "application/octet-stream",
        key=f"{key}-onnx",
        on_click="ignore",
        icon=":material/download:",
    )
    calibration = " and calibration" if is_calibrated(info_of(entry)) else ""
    st.caption(f"One file that thirtytwo and every program with ONNX Runtime can use, with class names{calibration}.")
    chosen = st.radio("A smaller file, with weights rounded to", list(_WEIGHTS), key=f"{key}-weights")
    weights = _WEIGHTS[chosen]
    state = f"{key}-shrunk"
    if st.button("Make the smaller file", key=f"{key}-shrink", icon=":material/compress:"):
        st.session_state[state] = (entry.stamp, weights)
    if st.session_state.get(state) == (entry.stamp, weights):
        try:
            _show_smaller(entry, weights, key)
        except ThirtytwoError as error:
            show_error(error)


def _show_smaller(entry: Entry, weights: Weights, key: str) -> None:
    """Offer a file with rounded weights, and show how much its predictions differ.

    Raises:
        ExportError: there are no weights to round.
    """
    made = _smaller(entry.stamp, weights)
    before = entry.path.stat().st_size
    if len(made.data) > _WORTH * before:
        st.info("The weights of this model are stored in a small form already.", icon=":material/info:")
        return
    images = images_for(entry)[:_MAX_COMPARED]
    st.download_button(
        f"Download the smaller file ({file_size(len(made.data))} instead of {file_size(before)})",
        made.data,
        f"{slug(entry.name)}-{weights}.onnx",
        "application/octet-stream",
        key=f"{key}-smaller",
        type="primary",
        on_click="ignore",
        icon=":material/download:",
    )
    change = _change(entry.stamp, weights, tuple(image.digest for image in images), entry, images) if images else None
    if change is None or not change.count:
        st.caption("It was not compared with the original: add images on the page Classify to see how much it differs.")
    else:
        st.caption(change.text)
    st.caption("The smaller file does not carry the accuracy of the original, which was measured with other weights.")


def images_for(entry: Entry) -> list[InputImage]:
    """Images to compare files on: those that a model was taught with, else those of the page Classify.

    Of many, every second, third, … is taken, so that there are some of each class.
    """
    if entry.origin == TAUGHT:
        try:
            project = projects().read(entry.path.parent.name)
        except ThirtytwoError:  # deleted in another tab
            return []
        readable = [photo for one in project.classes for photo in one.readable]
        step = max(1, -(-len(readable) // _MAX_COMPARED))
        return [projects().image(project.identity, photo) for photo in readable[::step]]
    return [image for image in photos.current_images() if not image.problem]


@st.cache_data(show_spinner="Rounding the weights …", max_entries=4)
def _smaller(stamp: tuple[str, int, int], weights: Weights) -> Smaller:
    """A model file with rounded weights, without the accuracy of the original."""
    from thirtytwo.export.metadata import rewrite_info  # with the library onnx, which takes memory
    from thirtytwo.export.quantize import shrink_onnx

    source = Path(stamp[0])
    with tempfile.TemporaryDirectory(prefix="thirtytwo-export-") as folder:
        target = Path(folder) / "model.onnx"
        shrink_onnx(source, target, weights)
        rewrite_info(target, read_info(source).model_copy(update={"accuracy": None}))
        return Smaller(target.read_bytes(), weights)


@st.cache_data(show_spinner="Comparing both files …", max_entries=16)
def _change(
    stamp: tuple[str, int, int],
    weights: Weights,
    digests: tuple[str, ...],
    _entry: Entry,
    _images: Sequence[InputImage],
) -> Change:
    """The differences of a smaller file from the original on images, those that can be read."""
    classifier = load_classifier(_entry)
    decoded = [classifier.decode(image.path) for image in _images]
    pixels = [one.pixels for one in decoded if isinstance(one, DecodedImage)]
    if not pixels:
        return Change(0, 0, 0.0)
    with tempfile.TemporaryDirectory(prefix="thirtytwo-export-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(_smaller(stamp, weights).data)
        both = [one.run_batches(np.stack(pixels), ("probabilities",)) for one in (classifier, Classifier(path))]
    before, after = (outputs["probabilities"] for outputs in both)
    same = int((before.argmax(axis=1) == after.argmax(axis=1)).sum())
    return Change(len(pixels), same, float(np.abs(after - before).max()))


def _show_web_page(entry: Entry, key: str) -> None:
    """Offer a page that runs the model in the browser."""
    st.markdown(
        "A ZIP file with a page that classifies images in the browser, on phones, too. Unpack it and open `index.html` "
        "with a double click, or put the folder on any web server. It needs no network, and images stay on the device."
    )
    size = file_size(entry.path.stat().st_size + RUNTIME.stat().st_size)
    st.download_button(
        f"Download the web page (about {size})",
        lambda: web_page(entry.path),
        f"{slug(entry.name)}-web-page.zip",
        "application/zip",
        key=f"{key}-web",
        on_click="ignore",
        icon=":material/download:",
    )
    runtime = file_size(RUNTIME.stat().st_size)
    st.caption(f"{runtime} of it are ONNX Runtime's build for browsers, which comes with thirtytwo.")
