"""Predictions, cached for the session, and the files to download."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import streamlit as st

from thirtytwo.app.display import png, render
from thirtytwo.app.images import InputImage
from thirtytwo.app.library import Entry, load_classifier
from thirtytwo.cli.predict import write_csv, write_json
from thirtytwo.inference.classifier import Prediction, Unreadable

TOP = 10
"""Maximum number of classes kept per image."""
_PROGRESS_FROM = 12  # smallest number of images with a progress bar
_STEP = 8
_MAX_CACHED = 4000
_CACHE = "results"
_UNNAMED = re.compile("The (?:image|picture)")  # how errors refer to an image without a file name

Result = Prediction | Unreadable


def classify(entry: Entry, images: Sequence[InputImage]) -> list[Result]:
    """Classify images with up to `TOP` classes each; shows a progress bar for many images."""
    cache: dict[tuple[object, str], Result] = st.session_state.setdefault(_CACHE, {})
    new = [image for image in images if (entry.stamp, image.digest) not in cache]
    if new:
        classifier = load_classifier(entry)
        bar = st.progress(0.0, f"Classifying {len(new)} images …") if len(new) >= _PROGRESS_FROM else None
        new_results = classifier.predict_iter((image.data for image in new), top=min(TOP, len(classifier.classes)))
        for number, (image, result) in enumerate(zip(new, new_results, strict=True), start=1):
            cache[entry.stamp, image.digest] = result
            if bar is not None and number % _STEP == 0:
                bar.progress(number / len(new), f"Classified {number} of {len(new)} images")
        if bar is not None:
            bar.empty()
    results = [_with_name(cache[entry.stamp, image.digest], image.name) for image in images]
    for key in list(cache)[: max(0, len(cache) - _MAX_CACHED)]:
        del cache[key]
    return results


def as_csv(results: Sequence[Result], top: int) -> str:
    """Results as written by `thirtytwo predict --format csv`."""
    stream = io.StringIO()
    write_csv([truncate(result, top) for result in results], stream, top)
    return stream.getvalue()


def as_json(results: Sequence[Result], top: int) -> str:
    """Results as written by `thirtytwo predict --format json`."""
    stream = io.StringIO()
    write_json([truncate(result, top) for result in results], stream, top)
    return stream.getvalue()


def as_zip(entry: Entry, images: Sequence[InputImage], results: Sequence[Result]) -> bytes:
    """A ZIP file with a heatmap overlay of every readable image, and `predictions.json`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        taken: set[str] = set()
        for image, result in zip(images, results, strict=True):
            if isinstance(result, Prediction):
                archive.writestr(_unused_png_name(image.name, taken), png(render(entry, image, heat=True).image))
        archive.writestr("predictions.json", as_json(results, TOP), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def truncate(result: Result, top: int) -> Result:
    """A result with at most `top` classes."""
    return result if isinstance(result, Unreadable) else replace(result, predictions=result.predictions[:top])


def _with_name(result: Result, name: str) -> Result:
    """Set the file name of a result that was predicted from bytes."""
    if isinstance(result, Unreadable):
        return Unreadable(name, _UNNAMED.sub(lambda _: name, result.error, count=1))
    return replace(result, file=name)


def _unused_png_name(name: str, taken: set[str]) -> str:
    """An unused PNG name derived from the image's name."""
    stem = PurePosixPath(name.replace("\\", "/")).stem or "image"
    free, number = f"{stem}.png", 2
    while free.casefold() in taken:
        free, number = f"{stem}-{number}.png", number + 1
    taken.add(free.casefold())
    return free
