"""The page Models: available models with their classes and metrics, and adding a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.components import describe, require_model, show_error, title
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
from thirtytwo.app.settings import MODEL_MB
from thirtytwo.app.uploads import content
from thirtytwo.errors import ThirtytwoError
from thirtytwo.evaluation.metrics import measured
from thirtytwo.inference.classifier import find_model, model_name
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
_METRICS = ("accuracy", "accuracy_tta", "top5_accuracy", "macro_f1", "ece")


def show() -> None:
    """Show the page."""
    title("Models", "What each model can name and how accurate it is. The other pages use the model that is in use.")
    found = entries()
    if not found:
        require_model()
    used = selected_model(found)
    for number, entry in enumerate(found):
        with st.container(border=True):
            _show_model(entry, number, used=entry == used)
    _show_cross_validations()
    st.subheader("Add a model", anchor=False)
    upload()
    if library.settings.is_local:
        _show_path_form()


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
    path = find_model(text)
    read_info(path)
    return add_model(model_name(path), path, f"from {path}")


def _add(key: str, add: Any) -> None:
    """Add a model and store the outcome for `_show_outcome`."""
    try:
        entry = add()
        st.session_state[f"{key}-outcome"] = (True, f"{entry.name} was added. To classify with it, choose Use.")
    except ThirtytwoError as error:
        st.session_state[f"{key}-outcome"] = (False, f"{error.message} {error.fix or ''}")


def _show_outcome(key: str) -> None:
    success, text = st.session_state.pop(f"{key}-outcome", (True, ""))
    if text:
        (st.success if success else st.error)(
            as_markdown(text), icon=":material/check:" if success else ":material/error:"
        )


def _show_model(entry: Entry, number: int, *, used: bool) -> None:
    _show_header(entry, number, used=used)
    try:
        info = info_of(entry)
    except ThirtytwoError as error:
        show_error(error)
        return
    st.markdown(describe(info))
    if expectation := expectation_of(entry):
        st.markdown(as_markdown(f"Estimated accuracy: {expectation}"))
    size = entry.path.stat().st_size / 1e6
    origin = as_markdown(capitalized(entry.origin))
    st.caption(f"{origin} · {size:.1f} MB · made by thirtytwo {as_markdown(info.version)}")
    with st.expander("Classes"):
        st.markdown(", ".join(as_markdown(readable(name)) for name in info.classes))
    run = RunDir(entry.path.parent)
    if entry.path.name == run.onnx.name and run.metrics.is_file():
        _show_run(run, number)
    else:
        _show_card(entry.path.with_suffix(".md"))


def _show_header(entry: Entry, number: int, *, used: bool) -> None:
    """Show the name of a model, and whether it is in use or a button to use it."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(as_markdown(entry.name), anchor=False, width="content")
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


def _show_run(run: RunDir, number: int) -> None:
    """Show metrics, figures, card and report of a model's run."""
    with st.expander("Metrics"):
        _show_metrics(run)
    _show_card(run.card)
    offer_report(run, f"report-{number}")


def _show_metrics(run: RunDir) -> None:
    """Show the metrics of a run with their intervals, and its figures."""
    metrics = run.read_json(run.metrics)
    rows = [
        {"metric": metric.name, "value": value, "95\u00a0% interval": ends}
        for metric, value, ends in measured(metrics)
        if metric.key in _METRICS
    ]
    st.caption(as_markdown(f"{metrics['dataset']}, {metrics['split']}, {metrics['n']:,} images"))
    st.dataframe(rows, hide_index=True, alt="Metrics with 95\u00a0% intervals")
    for path in sorted(run.figures.glob("*.png")) if run.figures.is_dir() else []:
        st.image(str(path), alt=path.stem.replace("-", " "), width="stretch")


def lower_headings(card: str) -> str:
    """A card whose headings are below that of its model, which stands above the card; code stays as it is."""

    def lower(heading: re.Match[str]) -> str:
        return "#" * min(_MAX_LEVEL, len(heading[1]) + _CARD_LEVEL)

    parts = card.split(_FENCE)
    return _FENCE.join(_HEADING.sub(lower, part) if place % 2 == 0 else part for place, part in enumerate(parts))


def _show_card(path: Path) -> None:
    """Show a model card without its front matter, images and folded sections."""
    if path.is_file():
        with st.expander("Model card"):
            text = _FRONT_MATTER.sub("", path.read_text(encoding="utf-8", errors="replace"))
            text = lower_headings(_FOLDED.sub("", _IMAGE.sub("", text)))
            st.markdown(text.replace("![", "!\\["))  # other images would be fetched from external sites
