"""The page Models: available models with their classes and metrics, and adding a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.about_models import about, technical_details
from thirtytwo.app.components import describe, require_model, show_error, show_gone_model, title, with_errors
from thirtytwo.app.folder_field import entered
from thirtytwo.app.folds import cross_validations, offer_report, show_cross_validation
from thirtytwo.app.library import (
    Entry,
    add_model,
    add_upload,
    entries,
    expectation_of,
    info_of,
    select_model,
    selected_model,
)
from thirtytwo.app.manage import show_actions, show_notices
from thirtytwo.app.model_table import metrics_table, model_rows, run_of, table_of, taught_project
from thirtytwo.app.problems import explained
from thirtytwo.app.project import Project
from thirtytwo.app.settings import MODEL_MB
from thirtytwo.app.taught_card import METRICS as TAUGHT_METRICS
from thirtytwo.app.taught_card import estimated_metrics, how_estimated, taught_card
from thirtytwo.app.taught_result import Result
from thirtytwo.app.uploads import content
from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.library import find_model, model_name
from thirtytwo.inference.model_file import read_info
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_markdown, capitalized, readable

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)\n?")
_FOLDED = re.compile(r"<details>.*?</details>\n*", re.DOTALL)  # the list of classes, which is shown separately
_HEADING = re.compile(r"^(#{1,6})(?= )", re.MULTILINE)
_FENCE = "```"
_CARD_LEVEL, _MAX_LEVEL = 3, 6
"""Level of the heading of a model, which headings of its card are below, and of the smallest heading."""
QUERY = "model"
"""Parameter of the page's address that names the model to show alone."""
_SHOWN = "name and path of the model that is shown alone"
_METRICS = ("accuracy", "accuracy_tta", "top5_accuracy", "macro_f1", "ece")


def show() -> None:
    """Show the page: all models, or the one that the page's address names."""
    found = entries()
    wanted = st.query_params.get(QUERY, "")
    number, entry = next(((at, one) for at, one in enumerate(found) if one.name == wanted), (0, None))
    shown = st.session_state.pop(_SHOWN, None)
    was_shown = wanted and shown is not None and shown[0] == wanted
    if entry is None and was_shown:  # it may have been renamed on its page
        number, entry = next(((at, one) for at, one in enumerate(found) if str(one.path) == shown[1]), (0, None))
    if entry is not None:
        _open(entry.name)
        st.session_state[_SHOWN] = (entry.name, str(entry.path))
        _show_one(entry, found, number)
        return
    _open("")
    title("Models", "What each model can name and how accurate it is. The other pages use the model that is in use.")
    show_notices()
    if wanted and not was_shown:  # else it was deleted on its page
        st.warning(as_markdown(f"There is no model {wanted} anymore. These are all models."), icon=":material/delete:")
    if not found:
        require_model()
    used = selected_model(found)
    show_gone_model(used)
    if len(found) > 1:
        st.html(table_of(model_rows(found)))
    for number, entry in enumerate(found):
        with st.container(border=True):
            _show_model(entry, found, number, used=entry == used)
    _show_cross_validations()
    st.subheader("Add a model", anchor=False)
    upload()
    if library.settings.is_local:
        _show_path_form()


def _show_one(entry: Entry, found: Sequence[Entry], number: int) -> None:
    """Show everything about one model as a page of its own."""
    st.button("All models", icon=":material/arrow_back:", key="models-all", on_click=_open, args=("",))
    title(as_markdown(entry.name), "")
    show_notices()
    _show_about(entry)
    if entry == selected_model(found):
        st.badge("in use", icon=":material/check:", color="green")
    else:
        st.button("Use", key=f"use-{number}", type="primary", on_click=select_model, args=(entry,))
    show_actions(entry, found, number)
    _show_details(entry, number, expanded=True)


def _open(name: str) -> None:
    """Show one model as a page, or with an empty name all models."""
    if name:
        st.query_params[QUERY] = name
    else:
        st.query_params.pop(QUERY, None)


def _show_cross_validations() -> None:
    """Show the accuracy of each cross-validation, with its report; those that are damaged with the reason."""
    found = cross_validations()
    if not found:
        return
    st.subheader("Cross-validations", anchor=False)
    st.caption(
        "A cross-validation measures what accuracy to expect of training on this data. Its models, one for each fold, "
        "serve that purpose only. The page Explore shows its images."
    )
    for number, path in enumerate(found):
        with st.container(border=True):
            try:
                show_cross_validation(path, f"folds-report-{number}")
            except ThirtytwoError as error:
                show_error(error)


def upload() -> None:
    """Show a field to upload a model file, and the outcome of the last upload."""
    with st.container(key="model-field"):
        st.file_uploader(
            "A model.onnx file made by thirtytwo",
            type=["onnx"],
            key="model-upload",
            on_change=_add_uploaded,
            max_upload_size=MODEL_MB,
        )
    _show_outcome("model-upload")


def _add_uploaded() -> None:
    uploaded = st.session_state["model-upload"]
    if uploaded is not None:
        _add("model-upload", lambda: add_upload(uploaded.name, content(uploaded)))


def _show_path_form() -> None:
    with st.form("model-path", border=False, enter_to_submit=True):
        st.text_input("Or a run directory or file on this computer", placeholder="runs/mine", key="model-path-text")
        st.form_submit_button("Add", on_click=_add_path)
    _show_outcome("model-path-text")


def _add_path() -> None:
    text = st.session_state["model-path-text"].strip()
    if text:
        _add("model-path-text", lambda: _model_at(text))


def _model_at(text: str) -> Entry:
    path = find_model(entered(text))
    read_info(path)
    present = next((one for one in entries() if one.path.resolve() == path.resolve()), None)
    return present or add_model(model_name(path), path, f"from {path}")


def _add(key: str, add: Any) -> None:
    """Add a model and store the outcome for `_show_outcome`."""
    present = entries()
    try:
        entry = add()
        what = "is in the list already" if entry in present else "was added"
        st.session_state[f"{key}-outcome"] = (True, f"{entry.name} {what}. To classify with it, choose Use.")
    except ThirtytwoError as error:
        st.session_state[f"{key}-outcome"] = (False, explained(error))


def _show_outcome(key: str) -> None:
    success, text = st.session_state.pop(f"{key}-outcome", (True, ""))
    if text:
        (st.success if success else st.error)(
            as_markdown(text), icon=":material/check:" if success else ":material/error:"
        )


def _show_model(entry: Entry, found: Sequence[Entry], number: int, *, used: bool) -> None:
    """Show a model in the list."""
    _show_header(entry, number, used=used)
    if not _show_about(entry):
        show_actions(entry, found, number)
        return
    _show_details(entry, number)
    show_actions(entry, found, number)


def _show_about(entry: Entry) -> bool:
    """Show what a model is in a few lines; returns whether its file can be read."""
    try:
        info = info_of(entry)
    except ThirtytwoError as error:
        show_error(error)
        return False
    st.markdown(describe(info))
    if note := about(entry):
        st.markdown(as_markdown(note))
    if expectation := expectation_of(entry):
        st.markdown(as_markdown(f"Estimated accuracy: {expectation}"))
    size = entry.path.stat().st_size / 1e6
    origin = as_markdown(capitalized(entry.origin))
    st.caption(f"{origin} · {size:.1f} MB")
    return True


def _show_header(entry: Entry, number: int, *, used: bool) -> None:
    """Show the name of a model, and whether it is in use or a button to use it."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(as_markdown(entry.name), anchor=False, width="content")
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            st.button(
                "Open",
                key=f"open-{number}",
                type="tertiary",
                on_click=_open,
                args=(entry.name,),
                help=f"Everything about {as_markdown(entry.name)} on one page",
            )
            if used:
                st.badge("in use", icon=":material/check:", color="green")
            else:
                st.button(
                    "Use",
                    key=f"use-{number}",
                    on_click=select_model,
                    args=(entry,),
                    help=f"Use {as_markdown(entry.name)} as default",
                )


def _show_details(entry: Entry, number: int, *, expanded: bool = False) -> None:
    """Show classes, metrics, card and report of a model; nothing if its file cannot be read."""
    with suppress(ThirtytwoError):
        names = ", ".join(as_markdown(readable(name)) for name in info_of(entry).classes)
        with st.expander("Classes"):
            st.markdown(names)
        with st.expander("Technical details"):
            st.markdown(technical_details(info_of(entry)))
        if (run := run_of(entry)) is not None:
            with st.expander("Metrics", expanded=expanded):
                with_errors(_show_metrics)(run)  # its card and report are shown all the same
            _show_card_file(run.card, expanded=expanded)
            offer_report(run, f"report-{number}")
        elif (taught := taught_project(entry)) is not None:
            _show_taught(entry, *taught, number, expanded=expanded)
        else:
            _show_card_file(entry.path.with_suffix(".md"), expanded=expanded)


def _show_taught(entry: Entry, project: Project, result: Result, number: int, *, expanded: bool) -> None:
    """Show the estimated metrics and the card of a taught model."""
    metrics = _estimated(result)
    if metrics is not None:
        with st.expander("Metrics", expanded=expanded):
            st.caption(as_markdown(f"{how_estimated(result.count).capitalize()}. It was not measured on a test set."))
            st.html(metrics_table(metrics, TAUGHT_METRICS))
    card = taught_card(project, result, info_of(entry), metrics)
    with st.expander("Model card", expanded=expanded):
        _show_card(card)
        st.download_button(
            "Download the card",
            card,
            "README.md",
            "text/markdown",
            key=f"card-{number}",
            on_click="ignore",
            icon=":material/download:",
        )


@st.cache_data(show_spinner=False, max_entries=20, hash_funcs={Result: lambda result: result.model_dump_json()})
def _estimated(result: Result) -> dict[str, Any] | None:
    return estimated_metrics(result)


def _show_metrics(run: RunDir) -> None:
    """Show the metrics of a run with their intervals, and its figures."""
    metrics = run.read_json(run.metrics)
    st.caption(as_markdown(f"{metrics['dataset']}, {metrics['split']}, {metrics['n']:,} images"))
    st.html(metrics_table(metrics, _METRICS))
    for path in sorted(run.figures.glob("*.png")) if run.figures.is_dir() else []:
        st.image(str(path), alt=path.stem.replace("-", " "), width="stretch")


def lower_headings(card: str) -> str:
    """A card whose headings are below that of its model, which stands above the card; code stays as it is."""

    def lower(heading: re.Match[str]) -> str:
        return "#" * min(_MAX_LEVEL, len(heading[1]) + _CARD_LEVEL)

    parts = card.split(_FENCE)
    return _FENCE.join(_HEADING.sub(lower, part) if place % 2 == 0 else part for place, part in enumerate(parts))


def _show_card_file(path: Path, *, expanded: bool) -> None:
    if path.is_file():
        with st.expander("Model card", expanded=expanded):
            try:
                _show_card(path.read_text(encoding="utf-8", errors="replace"))
            except OSError as error:
                st.caption(as_markdown(f"{path} cannot be read: {error.strerror}."))


def _show_card(text: str) -> None:
    """Show a model card without its front matter, images and folded sections; its headings stay below the page's."""
    text = lower_headings(_FOLDED.sub("", _IMAGE.sub("", _FRONT_MATTER.sub("", text))))
    st.markdown(text.replace("![", "!\\["))  # other images would be fetched from external sites
