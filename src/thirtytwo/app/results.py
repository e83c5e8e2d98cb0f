"""What models say of pictures, remembered for the session, and the files that can be taken away."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import streamlit as st

from thirtytwo.app.display import drawn, png
from thirtytwo.app.images import Picture
from thirtytwo.app.library import Entry, opened
from thirtytwo.cli.predict import write_csv, write_json
from thirtytwo.inference.classifier import Prediction, Unreadable

TOP = 10
"""Classes kept of each picture, at most."""
_MANY = 12
_STEP = 8
_REMEMBERED = 4000
_TOLD = "told"

Result = Prediction | Unreadable


def tell(entry: Entry, pictures: Sequence[Picture]) -> list[Result]:
    """What a model says of each picture, with up to `TOP` classes; shows progress where it takes a while."""
    told: dict[tuple[object, str], Result] = st.session_state.setdefault(_TOLD, {})
    new = [picture for picture in pictures if (entry.stamp, picture.digest) not in told]
    if new:
        classifier = opened(entry)
        bar = st.progress(0.0, f"Classifying {len(new)} pictures …") if len(new) >= _MANY else None
        results = classifier.predict_iter((picture.data for picture in new), top=min(TOP, len(classifier.classes)))
        for number, (picture, result) in enumerate(zip(new, results, strict=True), start=1):
            told[entry.stamp, picture.digest] = result
            if bar is not None and number % _STEP == 0:
                bar.progress(number / len(new), f"Classified {number} of {len(new)} pictures")
        if bar is not None:
            bar.empty()
    answers = [_named(told[entry.stamp, picture.digest], picture.name) for picture in pictures]
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


def as_zip(entry: Entry, pictures: Sequence[Picture], results: Sequence[Result]) -> bytes:
    """A ZIP file with every readable picture under heat, and `predictions.json`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        taken: set[str] = set()
        for picture, result in zip(pictures, results, strict=True):
            if isinstance(result, Prediction):
                archive.writestr(_free(picture.name, taken), png(drawn(entry, picture, heat=True).picture))
        archive.writestr("predictions.json", as_json(results, TOP), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def cut(result: Result, top: int) -> Result:
    """With `top` classes at most."""
    return result if isinstance(result, Unreadable) else replace(result, predictions=result.predictions[:top])


def _named(result: Result, name: str) -> Result:
    """Under the picture's name, which bytes do not tell."""
    if isinstance(result, Unreadable):
        return Unreadable(name, result.error.replace("The picture", name, 1))
    return replace(result, file=name)


def _free(name: str, taken: set[str]) -> str:
    """A PNG's name like the picture's that is not taken yet."""
    stem = PurePosixPath(name.replace("\\", "/")).stem or "picture"
    free, number = f"{stem}.png", 2
    while free.casefold() in taken:
        free, number = f"{stem}-{number}.png", number + 1
    taken.add(free.casefold())
    return free
