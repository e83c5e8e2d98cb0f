"""New classes from a few images each."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from thirtytwo.app.components import choose_model, mistake, title
from thirtytwo.app.display import Pixels, view
from thirtytwo.app.images import InputImage, as_images, drop
from thirtytwo.app.library import Entry, keep_taught, opened
from thirtytwo.app.markup import matrix, percent, wall
from thirtytwo.app.results import tell
from thirtytwo.app.views.classify import cards
from thirtytwo.errors import ImageError, ThirtytwoError
from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.fewshot import LEAST, Taught, teach
from thirtytwo.images.decode import load_image
from thirtytwo.text import as_markdown

_GROUPS, _NUMBERS, _LESSON = "groups", "group-numbers", "lesson"
_SHOWN = 6
_WRONG = 12


def show() -> None:
    """The page."""
    title(
        "Teach new classes",
        f"Name two or more classes and give each {LEAST} to 50 images. The network of a trained model stays as it is "
        "and only its last layer learns the new names: this takes seconds, and nothing leaves this computer.",
    )
    entry = choose_model("Build on", key="base")
    numbers: list[int] = st.session_state.setdefault(_NUMBERS, [1, 2])
    groups = [_group(number, position, len(numbers)) for position, number in enumerate(numbers, start=1)]
    st.button("Add a class", icon=":material/add:", on_click=_add)
    missing = _missing(groups)
    if missing:
        st.info(as_markdown(missing), icon=":material/checklist:")
    if st.button("Teach", type="primary", disabled=bool(missing), icon=":material/school:"):
        _teach(entry, groups)
    lesson = st.session_state.get(_LESSON)
    if lesson is not None and lesson[1].path.is_file():
        _results(*lesson)


def _group(number: int, position: int, count: int) -> tuple[str, list[InputImage]]:
    """Ask for one class; its name and images."""
    with st.container(border=True, key=f"group-{number}"):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.text_input(
                f"Name of class {position}",
                key=f"name-{number}",
                placeholder=("my cat", "the neighbour's cat")[position - 1] if position <= 2 else "another",
                persist_state="session",
            )
            if count > 2:
                st.button("Remove", key=f"remove-{number}", icon=":material/delete:", on_click=_remove, args=(number,))
        drop(f"Images of {name.strip() or f'class {position}'}", f"group-files-{number}", _take, (number,))
        held: list[InputImage] = st.session_state.setdefault(_GROUPS, {}).get(number, [])
        if held:
            st.caption(f"{len(held)} images" + ("" if len(held) >= LEAST else f"; {LEAST - len(held)} more needed"))
    return name.strip(), held


def _take(key: str, number: int) -> None:
    st.session_state.setdefault(_GROUPS, {})[number] = as_images(st.session_state[key])


def _add() -> None:
    st.session_state[_NUMBERS].append(max(st.session_state[_NUMBERS]) + 1)


def _remove(number: int) -> None:
    st.session_state[_NUMBERS].remove(number)
    st.session_state.setdefault(_GROUPS, {}).pop(number, None)


def _missing(groups: Sequence[tuple[str, list[InputImage]]]) -> str:
    """What has to be done before anything can be taught, or nothing."""
    names = [name for name, _ in groups]
    steps = [f"name class {position}" for position, name in enumerate(names, start=1) if not name]
    repeated = {name for name in names if name and names.count(name) > 1}
    steps += [f"give the classes called {name!r} names of their own" for name in sorted(repeated)]
    steps += [
        f"add at least {LEAST - len(held)} more images of {name or f'class {position}'}"
        for position, (name, held) in enumerate(groups, start=1)
        if len(held) < LEAST
    ]
    return f"Next: {'; '.join(steps)}." if steps else ""


def _teach(entry: Entry, groups: Sequence[tuple[str, list[InputImage]]]) -> None:
    """Teach, check the file that comes of it, and put it on the shelf."""
    classifier = opened(entry)
    size, rule = classifier.info.input_size, classifier.info.resize
    pixels: dict[str, list[Pixels]] = {}
    sources: dict[bytes, InputImage] = {}
    with st.spinner("Looking at the images and teaching …"):
        try:
            for name, images in groups:
                pixels[name] = []
                for image in images:
                    found = load_image(image.data, size, rule, image.name).pixels
                    sources.setdefault(found.tobytes(), image)
                    pixels[name].append(found)
            taught = teach(classifier, pixels)
            with tempfile.TemporaryDirectory() as folder:
                data = taught.write(Path(folder) / "model.onnx").read_bytes()
        except ThirtytwoError as error:
            fix = "Take it out of its class." if isinstance(error, ImageError) else error.fix
            mistake(type(error)(error.message, fix))
            return
        found_entry = keep_taught(" or ".join(pixels), data)
        st.session_state[_LESSON] = (taught, found_entry, [sources[one.tobytes()] for one in taught.pictures])


def _results(taught: Taught, entry: Entry, images: Sequence[InputImage]) -> None:
    """How good it is, its mistakes, trying it, and taking it away."""
    st.header("What was learnt", anchor=False)
    accuracy = taught.accuracy
    low, high = accuracy["ci95"]
    count = len(taught.held_out.truth)
    st.metric(
        f"right in {taught.folds}-fold cross-validation, {count} images",
        percent(accuracy["value"]),
        f"95 % interval {100 * low:.0f}–{100 * high:.0f} %",
        delta_color="off",
        delta_arrow="off",
    )
    st.caption(
        "Each image was judged by a model that had not seen it. More images narrow the interval; images of the "
        "same scene make it look better than it is."
    )
    st.html(matrix(confusion_matrix(taught.held_out), taught.info.classes))
    _mistakes(taught, images)
    with st.container(horizontal=True, key="taught-downloads"):
        st.download_button(
            "Download model.onnx",
            entry.path.read_bytes,
            "model.onnx",
            "application/octet-stream",
            key="taught-model",
            type="primary",
            on_click="ignore",
            icon=":material/download:",
        )
    st.caption(
        f"It is on the pages Classify, Compare and Models now, as “{as_markdown(entry.name)}”. The file works "
        "everywhere: `thirtytwo predict photo.jpg --model model.onnx`"
    )
    st.subheader("Try it on new images", anchor=False)
    drop("New images", "try-files", _try)
    new: list[InputImage] = st.session_state.get("try-held", [])
    if new:
        cards(entry, new, tell(entry, new), min(5, len(taught.info.classes)), heat=False, key="try")


def _try(key: str) -> None:
    st.session_state["try-held"] = as_images(st.session_state[key])


def _mistakes(taught: Taught, images: Sequence[InputImage]) -> None:
    """Images that were called something else, the surest first."""
    held = taught.held_out
    wrong = np.flatnonzero(held.predicted != held.truth)
    if not len(wrong):
        return
    wrong = wrong[np.argsort(-held.confidence[wrong], kind="stable")]
    with st.expander(f"{len(wrong)} mistakes", expanded=len(wrong) <= _SHOWN):
        names = taught.info.classes
        tiles = (
            (
                view(images[place].data),
                f"{names[held.truth[place]]} → {names[held.predicted[place]]}",
                f"{percent(float(held.confidence[place]))} sure · {images[place].name}",
            )
            for place in wrong[:_WRONG].tolist()
        )
        st.html(wall(tiles))
