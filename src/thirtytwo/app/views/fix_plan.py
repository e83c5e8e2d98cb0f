"""The accepted fixes of the page Data as a file, and the commands that apply it."""

from __future__ import annotations

import shlex

import streamlit as st

from thirtytwo.app import library
from thirtytwo.data.fixes import encode_fix_plan
from thirtytwo.doctor.review import Review
from thirtytwo.text import as_printable, counted


def show_plan(review: Review) -> None:
    """Offer the accepted fixes as a file, and show the commands that apply it."""
    plan = review.plan
    counts = ", ".join(f"{count:,} to {action}" for action, count in plan.counts.items() if count)
    st.subheader("Plan", anchor=False)
    st.download_button(
        "Download plan (CSV)",
        encode_fix_plan(plan),
        "plan.csv",
        "text/csv",
        key="plan-csv",
        disabled=not plan.fixes,
        on_click="ignore",
        icon=":material/download:",
    )
    if not plan.fixes:
        st.caption("Accept a fix to get a plan.")
        return
    st.caption(
        f"{counted(len(plan.fixes), 'image')}: {counts}. Write a fixed copy of the data, or train with the fixes:"
    )
    st.code("\n".join(map(as_printable, commands(review.diagnosis.spec))), language="bash", wrap_lines=True)


def commands(spec: str) -> tuple[str, str]:
    """The commands that apply a downloaded plan: to a copy of the data, and in training."""
    root = library.settings.data_root
    options = [] if root is None else ["--data-root", str(root)]
    return (
        shlex.join(["thirtytwo", "data", "fix", spec, "--plan", "plan.csv", "--out", "NEW", *options]),
        shlex.join(["thirtytwo", "train", spec, "--apply", "plan.csv", *options]),
    )
