"""The result of the page Add classes: accuracy, confusions, misclassified images, download and trying the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from thirtytwo.app.components import image_grid, matrix
from thirtytwo.app.display import view
from thirtytwo.app.export_menu import show_export
from thirtytwo.app.frame import announce, jump_to
from thirtytwo.app.library import Entry, entries, projects, select_model, selected_model, taught_entry
from thirtytwo.app.originals import openable_input
from thirtytwo.app.project import Project
from thirtytwo.app.taught_result import Result
from thirtytwo.app.views.tried import TRIALS, show_trials
from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.fewshot import assess, suggest_next_steps
from thirtytwo.images.pixels import Pixels
from thirtytwo.predictions import Predictions
from thirtytwo.text import as_markdown, capitalized, counted, interval, listing, percent, readable

_MAX_EXPANDED = 6  # number of errors up to which they are shown expanded
_MAX_ERRORS = 12
_MAX_GROUPS = 6
_COLORS = {"weak": "red", "fair": "orange", "good": "green"}


def show_result(project: Project, result: Result, changes: Sequence[str]) -> None:
    """Show the result of a taught model; `changes` are those of the project since then, which make it out of date."""
    st.header("Result", anchor=False)
    if changes:
        st.warning(
            as_markdown(
                f"Out of date: {listing(changes, quoted=False, separator='; ')} since this model was trained. "
                "Train again to bring it up to date."
            ),
            icon=":material/history:",
        )
    _show_accuracy(result)
    announce(spoken_result(result))
    st.html(jump_to("Classify new images", TRIALS))
    _show_next_steps(project, result)
    entry = taught_entry(project)
    if result.held_out is not None:
        st.html(matrix(confusion_matrix(result.held_out), result.names))
        _show_misclassified(project, result, result.held_out, entry)
    with st.expander("Technical details"):
        st.markdown(as_markdown(f"A linear probe on the features of {result.base}. {' '.join(result.notes)}"))
    if entry is None:
        return
    _show_download(entry)
    with st.expander("Export: smaller file, web page, code", icon=":material/ios_share:"):
        show_export(entry, "probe-export")
    show_trials(project, result, entry)


def spoken_result(result: Result) -> str:
    """The result in a sentence for screen readers."""
    if result.accuracy is None:
        return f"Trained. The accuracy {result.expectation}."
    return f"Trained. Estimated accuracy {percent(result.accuracy['value'])}."


def _show_accuracy(result: Result) -> None:
    accuracy = result.accuracy
    if accuracy is None:
        st.info(f"The accuracy {result.expectation}.", icon=":material/info:")
        return
    st.metric(
        f"Estimated accuracy ({counted(result.count, 'photo')}, cross-validated)",
        percent(accuracy["value"]),
        f"95\u00a0% interval {interval(accuracy['ci95'])}",
        delta_color="off",
        delta_arrow="off",
    )
    verdict = assess(accuracy, list(result.counts.values()))
    if verdict is not None:
        word, guessing = verdict.sentence.split("; ")
        st.markdown(f":{_COLORS[word]}-badge[{capitalized(word)}] · {guessing}")
    st.caption(
        f"The photos were divided into {result.folds} parts, and each was classified by a model that was trained "
        "without its part. More photos narrow the interval; several photos of the same scene make the estimate too "
        "high."
    )


def _show_next_steps(project: Project, result: Result) -> None:
    """Show the most useful next steps, and images that look alike if they are one."""
    steps = suggest_next_steps(result.counts, result.held_out, result.alike)
    lines = "\n".join(f"{number}. {as_markdown(step.sentence)}" for number, step in enumerate(steps, start=1))
    with st.container(border=True, key="next-steps"):
        st.markdown(f"**To improve it**\n\n{lines}")
        groups = [group for step in steps for group in step.images][:_MAX_GROUPS]
        if groups:
            with st.expander("Images that look alike"):
                for group in groups:
                    st.html(image_grid(_tiles_of(project, result, group)))


def _tiles_of(project: Project, result: Result, positions: Sequence[int]) -> list[tuple[Pixels, str, str]]:
    """Tiles of images by their positions in the result; of those that are still in the project."""
    stored = {photo.digest: (one.name, photo) for one in project.classes for photo in one.photos}
    found = [stored[result.digests[place]] for place in positions if result.digests[place] in stored]
    return [(view(projects().image(project.identity, photo)), readable(name), photo.name) for name, photo in found]


def _show_download(entry: Entry) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="probe-downloads"):
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
        if selected_model(entries()) == entry:
            st.badge("in use", icon=":material/check:", color="green")
        else:
            st.button("Use on all pages", key="probe-use", on_click=select_model, args=(entry,))
    st.caption(
        f"The model is kept with this project and listed on the pages Classify, Compare and Models as "
        f"“{as_markdown(entry.name)}”. Export, below, also makes a page of it that works on phones, and shows how "
        "programs use the file."
    )


def _show_misclassified(project: Project, result: Result, predictions: Predictions, entry: Entry | None) -> None:
    """Show misclassified images, most confident first; they open with what the model sees."""
    wrong = np.flatnonzero(~predictions.correct)
    if not len(wrong):
        return
    wrong = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    stored = {photo.digest: photo for one in project.classes for photo in one.photos}
    tiles: list[tuple[Pixels, str, str]] = []
    opens: list[str] = []
    for index in wrong.tolist():
        photo = stored.get(result.digests[index])
        if photo is not None and len(tiles) < _MAX_ERRORS:
            true, found = (
                readable(predictions.classes[part[index]]) for part in (predictions.truth, predictions.predicted)
            )
            confidence = percent(float(predictions.confidence[index]))
            image = projects().image(project.identity, photo)
            tiles.append((view(image), f"{true} → {found}", f"{confidence} confidence · {photo.name}"))
            opens.append(openable_input(image, entry, f"{true} → {found}, {confidence}"))
    with st.expander(counted(len(wrong), "misclassified image"), expanded=len(wrong) <= _MAX_EXPANDED):
        st.html(image_grid(tiles, opens))
