"""The result of the page Add classes: accuracy, confusions, misclassified images, download and trying the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from thirtytwo.app import photos
from thirtytwo.app.components import image_grid, matrix
from thirtytwo.app.display import classify, view
from thirtytwo.app.export_menu import show_export
from thirtytwo.app.frame import announce
from thirtytwo.app.images import current_images, receive_for, upload_field
from thirtytwo.app.library import Entry, entries, projects, select_model, selected_model
from thirtytwo.app.originals import openable_input
from thirtytwo.app.projects import Project, Result
from thirtytwo.app.views.classify import cards
from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.images.decode import Pixels
from thirtytwo.rundir import Predictions
from thirtytwo.text import as_markdown, counted, interval, listing, percent, readable

_MAX_EXPANDED = 6  # number of errors up to which they are shown expanded
_MAX_ERRORS = 12


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
    st.caption(as_markdown(" ".join(result.notes)))
    entry = _entry(project)
    if result.held_out is not None:
        st.html(matrix(confusion_matrix(result.held_out), result.names))
        _show_misclassified(project, result, result.held_out, entry)
    if entry is None:
        return
    _show_download(entry)
    with st.expander("Export: smaller file, web page, code", icon=":material/ios_share:"):
        show_export(entry, "probe-export")
    st.subheader("Classify new images", anchor=False)
    st.caption(as_markdown(f"Images below are classified with {entry.name}."))
    upload_field("New images", "try-files", receive_for(photos.TRIED))
    new = current_images(photos.TRIED, entry)
    if new:
        cards(entry, new, classify(entry, new), min(5, len(result.names)), heat=False, key="try")


def _entry(project: Project) -> Entry | None:
    path = projects().model(project.identity).resolve()
    return next((one for one in entries() if one.path.resolve() == path), None)


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
    st.caption(
        f"The photos were dealt into {result.folds} parts, and each was classified by a model that was trained without "
        "its part. More photos narrow the interval; several photos of the same scene make the estimate too high."
    )


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
        f"“{as_markdown(entry.name)}”. Use the file with `thirtytwo predict photo.jpg --model model.onnx`"
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
