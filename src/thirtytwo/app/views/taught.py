"""The result of the page Add classes: accuracy, confusions, misclassified images, download and trying the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from thirtytwo.app.components import image_grid, matrix, show_verdict
from thirtytwo.app.display import view
from thirtytwo.app.export_menu import show_export
from thirtytwo.app.frame import announce, jump_to
from thirtytwo.app.library import Entry, entries, projects, select_model, selected_model, taught_entry
from thirtytwo.app.originals import openable_input
from thirtytwo.app.project import Photo, Project
from thirtytwo.app.project_checks import RELIABLE
from thirtytwo.app.taught_card import technical_details
from thirtytwo.app.taught_result import Result
from thirtytwo.app.views.tried import TRIALS, show_trials
from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.fewshot import assess, suggest_next_steps
from thirtytwo.fewshot.linear_probe import LEAST_TO_ESTIMATE
from thirtytwo.images.pixels import Pixels
from thirtytwo.predictions import Predictions
from thirtytwo.text import as_markdown, counted, interval, listing, percent, readable

_MAX_EXPANDED = 6  # number of errors up to which they are shown expanded
_MAX_ERRORS = 12
_MAX_GROUPS = 6


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
    _show_doubtful(project, result)
    st.html(jump_to("Classify new images", TRIALS))
    _show_next_steps(project, result)
    entry = taught_entry(project)
    if result.held_out is not None:
        st.html(matrix(confusion_matrix(result.held_out), result.names))
        _show_misclassified(project, result, result.held_out, entry)
    with st.expander("Technical details"):
        st.markdown(as_markdown(technical_details(result)))
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
        single = [f"“{readable(name)}”" for name, count in result.counts.items() if count < LEAST_TO_ESTIMATE]
        has = f"{listing(single or ['a class'], quoted=False)} {'have' if len(single) > 1 else 'has'} only one image"
        st.warning(
            as_markdown(
                f"Not reliable: {has}, so nothing can be said about the accuracy, and no image is marked as unknown. "
                "Add images, better 20 of each class, and train again."
            ),
            icon=":material/warning:",
        )
        return
    st.metric(
        "Accuracy to expect on new photos",
        percent(accuracy["value"]),
        f"95\u00a0% interval {interval(accuracy['ci95'])}",
        delta_color="off",
        delta_arrow="off",
    )
    show_verdict(assess(accuracy, list(result.counts.values())))
    st.caption(
        f"For this estimate, each of your {counted(result.count, 'photo')} was classified by a model that had not seen "
        "it. More photos make the interval narrower; several photos of the same scene make the estimate too high."
    )
    few = [
        f"“{readable(name)}” has {counted(count, 'image')}" for name, count in result.counts.items() if count < RELIABLE
    ]
    if few:
        st.warning(
            as_markdown(f"Not reliable: {listing(few, quoted=False)}. Add images, better 20 of each class."),
            icon=":material/warning:",
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


def doubtful(project: Project, result: Result) -> list[list[tuple[int, Photo]]]:
    """Near-duplicates that are in different classes now: of each group, one image for each of its classes."""
    stored = {photo.digest: (one.number, photo) for one in project.classes for photo in one.photos}
    found = []
    for group in result.alike:
        places = [stored[result.digests[place]] for place in group if result.digests[place] in stored]
        by_class = {number: (number, photo) for number, photo in reversed(places)}
        if len(by_class) > 1:
            found.append([*reversed(by_class.values())])
    return found


def _show_doubtful(project: Project, result: Result) -> None:
    """Show images that look almost equal but are in different classes, of which one is probably wrong."""
    found = doubtful(project, result)
    for group in found[:_MAX_GROUPS]:
        (number, photo), *others = group
        rest = " and ".join(f"“{other.name}” in “{readable(project.class_name(place))}”" for place, other in others)
        st.warning(
            as_markdown(
                f"“{photo.name}” in “{readable(project.class_name(number))}” and {rest} are almost equal: one of "
                "them is probably in the wrong class. Remove or move it, and train again."
            ),
            icon=":material/content_copy:",
        )
        st.html(
            image_grid(
                (view(projects().image(project.identity, one)), readable(project.class_name(place)), one.name)
                for place, one in group
            )
        )
    if len(found) > _MAX_GROUPS:
        st.warning(f"{len(found) - _MAX_GROUPS} more images are almost equal to one of another class.")


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
