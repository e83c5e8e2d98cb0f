"""The page Add classes: a linear probe from a few images per class."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from thirtytwo.app.components import choose_model, image_grid, matrix, show_error, title
from thirtytwo.app.display import classify, view
from thirtytwo.app.images import InputImage, as_images, upload_field
from thirtytwo.app.library import Entry, entries, load_classifier, save_probe
from thirtytwo.app.views.classify import cards
from thirtytwo.errors import ImageError, ModelFileError, ThirtytwoError
from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.fewshot import LEAST, RESIZE, LinearProbe, choose_base, fit_linear_probe
from thirtytwo.images.decode import Pixels, ResizeRule, load_image, read_size
from thirtytwo.rundir import Predictions
from thirtytwo.text import as_markdown, capitalized, interval, percent

_CLASS_IMAGES, _CLASS_IDS, _PROBE, _BASE_DEFAULT = "groups", "group-numbers", "probe", "base-default"
_MAX_EXPANDED = 6  # number of errors up to which they are shown expanded
_MAX_ERRORS = 12


def show() -> None:
    """Show the page."""
    title(
        "Add classes from a few images",
        "Name two or more classes and add images of each, better 20 to 50 than 5. The app trains a linear probe for "
        "these classes on the features of an existing model, which takes seconds. No data leaves this computer.",
    )
    entry = _choose_base()
    ids: list[int] = st.session_state.setdefault(_CLASS_IDS, [1, 2])
    groups = [_class_input(number, position, len(ids)) for position, number in enumerate(ids, start=1)]
    st.button("Add a class", icon=":material/add:", on_click=_add_class)
    missing = _missing_input(groups)
    if missing:
        st.info(as_markdown(missing), icon=":material/checklist:")
    if st.button("Train", type="primary", disabled=bool(missing), icon=":material/school:"):
        _train_probe(entry, groups)
    result = st.session_state.get(_PROBE)
    if result is not None and result[1].path.is_file():
        _show_results(*result)


def _choose_base() -> Entry:
    """Show a selection of the base model; by default the one that suits the size of the images added so far."""
    found = entries()
    try:
        wanted, reason = choose_base(None, _sides())
    except ModelFileError:  # there is no model; the selection says how to get one
        wanted, reason = Path(), ""
    default = next((one.name for one in found if one.path.resolve() == wanted.resolve()), None)
    if st.session_state.get(_BASE_DEFAULT) != default:  # choose again when other images suggest another base
        st.session_state[_BASE_DEFAULT] = default
        if default is not None:
            st.session_state["base"] = default
    entry = choose_model("Base model", key="base", remember=False)
    if entry.name == default:
        st.caption(as_markdown(f"{capitalized(reason)}."))
    return entry


def _sides() -> list[int]:
    """Shorter side, in pixels, of each image added so far; unreadable ones are left out."""
    sides = []
    for images in st.session_state.get(_CLASS_IMAGES, {}).values():
        for image in images:
            try:
                sides.append(min(read_size(image.data)))
            except ImageError:  # reported on training
                continue
    return sides


def _class_input(number: int, position: int, count: int) -> tuple[str, list[InputImage]]:
    """Show the input of one class; return its name and images."""
    with st.container(border=True, key=f"group-{number}"):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.text_input(
                f"Name of class {position}",
                key=f"name-{number}",
                placeholder=("my cat", "the neighbour's cat")[position - 1] if position <= 2 else "another",
                persist_state="session",
            )
            if count > 2:
                st.button(
                    "Remove", key=f"remove-{number}", icon=":material/delete:", on_click=_remove_class, args=(number,)
                )
        upload_field(
            f"Images of {name.strip() or f'class {position}'}", f"group-files-{number}", _set_class_images, (number,)
        )
        images: list[InputImage] = st.session_state.setdefault(_CLASS_IMAGES, {}).get(number, [])
        if images:
            missing = "" if len(images) >= LEAST else f"; {LEAST - len(images)} more needed"
            st.caption(f"{len(images)} images{missing}")
    return name.strip(), images


def _set_class_images(key: str, number: int) -> None:
    st.session_state.setdefault(_CLASS_IMAGES, {})[number] = as_images(st.session_state[key])


def _add_class() -> None:
    st.session_state[_CLASS_IDS].append(max(st.session_state[_CLASS_IDS]) + 1)


def _remove_class(number: int) -> None:
    st.session_state[_CLASS_IDS].remove(number)
    st.session_state.setdefault(_CLASS_IMAGES, {}).pop(number, None)


def _missing_input(groups: Sequence[tuple[str, list[InputImage]]]) -> str:
    """The steps left before training, as a sentence; empty if there are none."""
    names = [name for name, _ in groups]
    steps = [f"name class {position}" for position, name in enumerate(names, start=1) if not name]
    repeated = {name for name in names if name and names.count(name) > 1}
    steps += [f"use the name {name!r} for one class only" for name in sorted(repeated)]
    steps += [
        f"add images of {name or f'class {position}'}"
        for position, (name, images) in enumerate(groups, start=1)
        if len(images) < LEAST
    ]
    return f"Next: {'; '.join(steps)}." if steps else ""


def _train_probe(entry: Entry, groups: Sequence[tuple[str, list[InputImage]]]) -> None:
    """Train a linear probe, check its model file and add it to the model library."""
    classifier = load_classifier(entry)
    with st.spinner("Computing features and training …"):
        try:
            pixels, sources = _decode(groups, classifier.info.input_size, RESIZE)
            probe = fit_linear_probe(classifier, pixels, resize=RESIZE)
            with tempfile.TemporaryDirectory() as folder:
                data = probe.write(Path(folder) / "model.onnx").read_bytes()
        except ThirtytwoError as error:
            fix = "Remove it from its class." if isinstance(error, ImageError) else error.fix
            show_error(type(error)(error.message, fix))
            return
        probe_entry = save_probe(" or ".join(pixels), data)
        st.session_state[_PROBE] = (probe, probe_entry, [sources[one.tobytes()] for one in probe.images])


def _decode(
    groups: Sequence[tuple[str, list[InputImage]]], size: int, rule: ResizeRule
) -> tuple[dict[str, list[Pixels]], dict[bytes, InputImage]]:
    """Decoded images by class, and the encoded image of each by its pixels."""
    pixels: dict[str, list[Pixels]] = {}
    sources: dict[bytes, InputImage] = {}
    for name, images in groups:
        pixels[name] = []
        for image in images:
            found = load_image(image.data, size, rule, image.name).pixels
            sources.setdefault(found.tobytes(), image)
            pixels[name].append(found)
    return pixels, sources


def _show_results(probe: LinearProbe, entry: Entry, images: Sequence[InputImage]) -> None:
    """Show accuracy, confusions and misclassified images; offer a download and a field to try the model."""
    st.header("Results", anchor=False)
    _show_accuracy(probe)
    st.caption(as_markdown(" ".join(probe.notes)))
    if probe.held_out is not None:
        st.html(matrix(confusion_matrix(probe.held_out), probe.info.classes))
        _show_misclassified(probe.held_out, images)
    _show_download(entry)
    st.subheader("Classify new images", anchor=False)
    upload_field("New images", "try-files", _set_new_images)
    new: list[InputImage] = st.session_state.get("try-images", [])
    if new:
        cards(entry, new, classify(entry, new), min(5, len(probe.info.classes)), heat=False, key="try")


def _show_accuracy(probe: LinearProbe) -> None:
    accuracy = probe.accuracy
    if accuracy is None:
        st.info(f"The accuracy {probe.expectation}.", icon=":material/info:")
        return
    st.metric(
        f"expected accuracy on new images, from {probe.folds}-fold cross-validation, {len(probe.labels)} images",
        percent(accuracy["value"], 1),
        f"95\u00a0% interval {interval(accuracy['ci95'], digits=0)}",
        delta_color="off",
        delta_arrow="off",
    )
    st.caption(
        "Each image was classified by a probe that was trained without it. More images narrow the interval; several "
        "images of the same scene make the estimate optimistic."
    )


def _show_download(entry: Entry) -> None:
    with st.container(horizontal=True, key="probe-downloads"):
        st.download_button(
            "Download model.onnx",
            entry.path.read_bytes,
            "model.onnx",
            "application/octet-stream",
            key="probe-model",
            type="primary",
            on_click="ignore",
            icon=":material/download:",
        )
    st.caption(
        f"The model is listed on the pages Classify, Compare and Models as “{as_markdown(entry.name)}”. Use the file "
        "with `thirtytwo predict photo.jpg --model model.onnx`"
    )


def _set_new_images(key: str) -> None:
    st.session_state["try-images"] = as_images(st.session_state[key])


def _show_misclassified(predictions: Predictions, images: Sequence[InputImage]) -> None:
    """Show misclassified images, most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    if not len(wrong):
        return
    wrong = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    with st.expander(f"{len(wrong)} misclassified images", expanded=len(wrong) <= _MAX_EXPANDED):
        names = predictions.classes
        tiles = (
            (
                view(images[index].data),
                f"{names[predictions.truth[index]]} → {names[predictions.predicted[index]]}",
                f"{percent(float(predictions.confidence[index]), 1)} confidence · {images[index].name}",
            )
            for index in wrong[:_MAX_ERRORS].tolist()
        )
        st.html(image_grid(tiles))
