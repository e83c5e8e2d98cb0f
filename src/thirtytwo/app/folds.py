"""Cross-validations in the app: which there are, their accuracy, and their folds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from thirtytwo.io import RUNS
from thirtytwo.report.seeds import cross_validation_sentences, read_summary
from thirtytwo.run_paths import OUT_OF_FOLD, holds_seeds
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_markdown, interval, is_utf8, percent

NOTE = "Each image is predicted by the run that was not trained on it."


def is_cross_validation(path: Path) -> bool:
    """Whether a directory holds the runs of a finished cross-validation."""
    return holds_seeds(path) and RunDir(path).predictions(OUT_OF_FOLD).is_file()


def cross_validations() -> list[Path]:
    """The directories of the finished cross-validations under ./runs, by name; without names that are not UTF-8."""
    found = (path.parent for path in RUNS.glob("*/summary.json") if is_utf8(path))
    return sorted(path for path in found if is_cross_validation(path))


def show_mean(content: Mapping[str, Any]) -> None:
    """Show the mean accuracy over folds, with its interval.

    Args:
        content: content of `summary.json`.
    """
    if not content.get("cross_validation"):  # it is being resumed
        return
    mean = content["cross_validation"]["mean_accuracy"]
    ends = "" if mean["ci95"] is None else f"95\u00a0% interval {interval(mean['ci95'])}"
    st.metric(
        f"mean accuracy over {content['folds']} folds",
        percent(mean["value"]),
        ends,
        delta_color="off",
        delta_arrow="off",
        help="The interval is Student's t over the folds: what to expect from training again on as many images.",
    )


def show_folds(path: Path, content: Mapping[str, Any], key: str) -> None:
    """Show the accuracy of each fold, and offer the report of all.

    Args:
        path: directory of the cross-validation.
        content: content of `summary.json`.
        key: key of the button.
    """
    st.caption("Each fold is the test of one run, which was trained on the other folds.")
    rows = [
        {
            "fold": run["fold"],
            "images": run["n"],
            "accuracy": percent(run["accuracy"]),
            "95\u00a0% interval": interval(run["accuracy_ci95"]),
        }
        for run in content["runs"]
    ]
    st.dataframe(rows, hide_index=True, alt="Accuracy of each fold with its 95\u00a0% interval")
    offer_report(RunDir(path), key)


def offer_report(run: RunDir, key: str) -> None:
    """Offer the report page of a run or a cross-validation as a file, if there is one."""
    if run.report.is_file():
        st.download_button(
            "Report (HTML)",
            run.report.read_bytes,
            f"{run.path.resolve().name}-report.html",
            "text/html",
            key=key,
            on_click="ignore",
            icon=":material/download:",
        )


def show_cross_validation(path: Path, key: str) -> None:
    """Show what a cross-validation found in two sentences, and offer its report.

    Raises:
        RunError: its summary is damaged.
    """
    st.subheader(as_markdown(path.resolve().name), anchor=False)
    for sentence in cross_validation_sentences(read_summary(path)):
        st.markdown(as_markdown(sentence))
    st.caption(as_markdown(f"cross-validation {path}"))
    offer_report(RunDir(path), key)
