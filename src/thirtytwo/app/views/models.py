"""The models at hand: what each knows, how good it is, and adding one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import streamlit as st

from thirtytwo.app import library as shelf
from thirtytwo.app.components import describe, mistake, no_model, title
from thirtytwo.app.library import Entry, choose, chosen, entries, info_of, keep, keep_upload, name_of
from thirtytwo.app.settings import MODEL_MB
from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.classifier import find_model
from thirtytwo.inference.model_file import read_info
from thirtytwo.report.run_record import interval, percent
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_markdown

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)\n?")
_FOLDED = re.compile(r"<details>.*?</details>\n*", re.DOTALL)  # the classes, which have a place of their own here
_FIGURES = {
    "accuracy": "accuracy",
    "accuracy_tta": "with test-time augmentation",
    "top5_accuracy": "top-5 accuracy",
    "macro_f1": "macro F1",
    "ece": "calibration error (ECE)",
}


def show() -> None:
    """The page."""
    title("Models", "What each model knows and how good it is. The one in use is what other pages begin with.")
    found = entries()
    if not found:
        no_model()
    used = chosen(found)
    for number, entry in enumerate(found):
        with st.container(border=True):
            _model(entry, number, used=number == used)
    st.subheader("Add a model", anchor=False)
    upload()
    if shelf.settings.is_local:
        _path()


def upload() -> None:
    """Take a model file, check it, and put it on the shelf."""
    st.file_uploader(
        "A model.onnx of thirtytwo", type=["onnx"], key="model-upload", on_change=_taken, max_upload_size=MODEL_MB
    )
    _told("model-upload")


def _taken() -> None:
    given = st.session_state["model-upload"]
    if given is not None:
        _try("model-upload", lambda: keep_upload(given.name, given.getvalue()))


def _path() -> None:
    with st.form("model-path", border=False, enter_to_submit=True):
        st.text_input("Or a run directory or file on this computer", placeholder="runs/mine", key="model-path-text")
        st.form_submit_button("Add", on_click=_pointed)
    _told("model-path-text")


def _pointed() -> None:
    text = st.session_state["model-path-text"].strip()
    if text:
        _try("model-path-text", lambda: _kept(text))


def _kept(text: str) -> Entry:
    path = find_model(Path(text).expanduser() if "/" in text or text.startswith("~") else text)
    read_info(path)
    return keep(name_of(path), path, f"from {path}")


def _try(key: str, add: Any) -> None:
    """Add a model, and leave what came of it for the page to tell."""
    try:
        entry = add()
        st.session_state[f"{key}-told"] = (True, f"{entry.name} was checked and is in use now.")
    except ThirtytwoError as error:
        st.session_state[f"{key}-told"] = (False, f"{error.message} {error.fix or ''}")


def _told(key: str) -> None:
    fine, text = st.session_state.pop(f"{key}-told", (True, ""))
    if text:
        (st.success if fine else st.error)(as_markdown(text), icon=":material/check:" if fine else ":material/error:")


def _model(entry: Entry, number: int, *, used: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(as_markdown(entry.name), anchor=False, width="content")
        if used:
            st.badge("in use", icon=":material/check:", color="green")
        else:
            st.button(
                "Use", key=f"use-{number}", on_click=choose, args=(entry,), help=f"Begin with {as_markdown(entry.name)}"
            )
    try:
        info = info_of(entry)
    except ThirtytwoError as error:
        mistake(error)
        return
    st.markdown(describe(info))
    size = entry.path.stat().st_size / 1e6
    st.caption(f"{as_markdown(entry.origin)} · {size:.1f} MB · made by thirtytwo {as_markdown(info.version)}")
    with st.expander("Classes"):
        st.markdown(", ".join(as_markdown(name) for name in info.classes))
    run = RunDir(entry.path.parent)
    if entry.path.name == run.onnx.name and run.metrics.is_file():
        _run(run, number)
    else:
        _card(entry.path.with_suffix(".md"))


def _run(run: RunDir, number: int) -> None:
    """Figures, card and report of the run that a model lies in."""
    with st.expander("Figures"):
        metrics = run.read_json(run.metrics)
        rows = [
            {
                "figure": label,
                "value": f"{figure['value']:.4f}" if key == "ece" else percent(figure["value"]),
                "95 % interval": interval(figure["ci95"], as_percent=key != "ece"),
            }
            for key, label in _FIGURES.items()
            if (figure := metrics.get(key)) and figure.get("value") is not None
        ]
        st.caption(as_markdown(f"{metrics['dataset']}, {metrics['split']}, {metrics['n']:,} images"))
        st.dataframe(rows, hide_index=True, alt="Scores with intervals")
        for path in sorted(run.figures.glob("*.png")) if run.figures.is_dir() else []:
            st.image(str(path), alt=path.stem.replace("-", " "), width="stretch")
    _card(run.card)
    if run.report.is_file():
        st.download_button(
            "Report (HTML)",
            run.report.read_bytes,
            f"{run.path.resolve().name}-report.html",
            "text/html",
            key=f"report-{number}",
            on_click="ignore",
            icon=":material/download:",
        )


def _card(path: Path) -> None:
    """A model card, without what is for a hub's eyes."""
    if path.is_file():
        with st.expander("Model card"):
            text = _FRONT_MATTER.sub("", path.read_text(encoding="utf-8", errors="replace"))
            text = _FOLDED.sub("", _IMAGE.sub("", text))
            st.markdown(text.replace("![", "!\\["))  # no other image either: it would be fetched from anywhere
