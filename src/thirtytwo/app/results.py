"""What models say of images, remembered for the session, and the files that can be taken away."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import streamlit as st

from thirtytwo.app.display import drawn, png
from thirtytwo.app.images import InputImage
from thirtytwo.app.library import Entry, opened
from thirtytwo.cli.predict import write_csv, write_json
from thirtytwo.inference.classifier import Prediction, Unreadable

TOP = 10
"""Classes kept of each image, at most."""
_MANY = 12
_STEP = 8
_REMEMBERED = 4000
_TOLD = "told"

Result = Prediction | Unreadable


def tell(entry: Entry, images: Sequence[InputImage]) -> list[Result]:
    """What a model says of each image, with up to `TOP` classes; shows progress where it takes a while."""
    told: dict[tuple[object, str], Result] = st.session_state.setdefault(_TOLD, {})
    new = [image for image in images if (entry.stamp, image.digest) not in told]
    if new:
        classifier = opened(entry)
        bar = st.progress(0.0, f"Classifying {len(new)} images …") if len(new) >= _MANY else None
        results = classifier.predict_iter((image.data for image in new), top=min(TOP, len(classifier.classes)))
        for number, (image, result) in enumerate(zip(new, results, strict=True), start=1):
            told[entry.stamp, image.digest] = result
            if bar is not None and number % _STEP == 0:
                bar.progress(number / len(new), f"Classified {number} of {len(new)} images")
        if bar is not None:
            bar.empty()
    answers = [_named(told[entry.stamp, image.digest], image.name) for image in images]
    for key in list(told)[: max(0, len(told) - _REMEMBERED)]:
        del told[key]
    return answers


def as_csv(results: Sequence[Result], top: int) -> str:
    """As `thirtytwo predict --format csv`."""
    stream = io.StringIO()
    write_csv([cut(result, top) for result in results], stream, top)
    return stream.getvalue()


def as_json(results: Sequence[Result], top: int) -> str:
    """As `thirtytwo predict --format json`."""
    stream = io.StringIO()
    write_json([cut(result, top) for result in results], stream, top)
    return stream.getvalue()


def as_zip(entry: Entry, images: Sequence[InputImage], results: Sequence[Result]) -> bytes:
    """A ZIP file with every readable image under heat, and `predictions.json`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        taken: set[str] = set()
        for image, result in zip(images, results, strict=True):
            if isinstance(result, Prediction):
                archive.writestr(_free(image.name, taken), png(drawn(entry, image, heat=True).image))
        archive.writestr("predictions.json", as_json(results, TOP), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def cut(result: Result, top: int) -> Result:
    """With `top` classes at most."""
    return result if isinstance(result, Unreadable) else replace(result, predictions=result.predictions[:top])


def _named(result: Result, name: str) -> Result:
    """Under the image's name, which bytes do not tell."""
    if isinstance(result, Unreadable):
        return Unreadable(name, result.error.replace("The image", name, 1))
    return replace(result, file=name)


def _free(name: str, taken: set[str]) -> str:
    """A PNG's name like the image's that is not taken yet."""
    stem = PurePosixPath(name.replace("\\", "/")).stem or "image"
    free, number = f"{stem}.png", 2
    while free.casefold() in taken:
        free, number = f"{stem}-{number}.png", number + 1
    taken.add(free.casefold())
    return free
