"""The page Data: the findings of `data doctor`, and the suggested fixes to accept or reject one by one."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from thirtytwo.app.components import show_error, title
from thirtytwo.app.folder_field import data_label, entered, show_chooser, what_to_enter
from thirtytwo.app.views import reviews
from thirtytwo.app.views.checked_data import CheckedData, check_data, recent_checks
from thirtytwo.app.views.findings import show_findings
from thirtytwo.app.views.fix_review import show_review
from thirtytwo.data.types import DATASETS
from thirtytwo.errors import ThirtytwoError
from thirtytwo.text import as_markdown, counted

_CHECKED = "checked data"


def show() -> None:
    """Show the page."""
    title(
        "Check data",
        "Find duplicates, wrong labels, unreadable files and other problems of a data set, and decide which suggested "
        "fixes to apply. This page changes no file of the data.",
    )
    _reopen()
    _show_form()
    checked: CheckedData | None = st.session_state.get(_CHECKED)
    if checked is None:
        st.info(what_to_enter(), icon=":material/folder_open:")
        reviews.show_earlier()
        return
    reviews.name_in_address(checked.identity)
    show_findings(checked)
    if checked.review.diagnosis.subject is not None:
        show_review(checked)


def _reopen() -> None:
    """Show the check again that the page's address names, with its decisions: after reloading the last one as it was.

    A check that takes minutes is not repeated without being asked for.
    """
    found = None if _CHECKED in st.session_state else reviews.named()
    if found is None:
        return
    reviews.fill_form(found)
    recent = None if reviews.wanted_anew() else recent_checks().get(found.identity)
    if recent is not None:
        review = recent.review.restarted(found.of(item.fix for item in recent.review.items))
        st.session_state[_CHECKED] = replace(recent, review=review, kept=dict(found.decided))
    elif found.thorough:
        kept = f"Your {counted(len(found.decided), 'decision')} on {found.spec} are kept."
        st.info(as_markdown(f"{kept} Check the data again to go on."), icon=":material/history:")
    else:
        try:
            with st.spinner("Checking …", show_time=True):
                st.session_state[_CHECKED] = check_data(found.source, thorough=False)
        except ThirtytwoError as error:
            reviews.forget_address()
            show_error(error)


def _known_names() -> str:
    return ", ".join(f"`{name}`" for name in DATASETS.names())


def _show_form() -> None:
    """Let the user choose a data set, and check it on request."""
    with st.form("doctor-form", border=False):
        spec = st.text_input(
            data_label(),
            key=reviews.SPEC,
            placeholder="my-images",
            help=what_to_enter(),
            persist_state="session",
        )
        thorough = st.checkbox(
            "Also look for wrong labels, which takes minutes", key=reviews.THOROUGH, persist_state="session"
        )
        wanted = st.form_submit_button("Check", type="primary", icon=":material/fact_check:", key="doctor-check")
    show_chooser(reviews.SPEC)
    if not wanted:
        return
    if not spec.strip():
        if _CHECKED in st.session_state:  # else the page says it below
            st.warning(what_to_enter(), icon=":material/folder_open:")
        return
    try:
        spec = entered(spec)
    except ThirtytwoError as error:
        show_error(error)
        return
    if not reviews.may_check(spec):
        st.error(f"From another computer, only known data sets can be checked: {_known_names()}.")
        st.stop()
    try:
        with st.spinner("Checking …", show_time=True):
            st.session_state[_CHECKED] = check_data(spec, thorough=thorough)
    except ThirtytwoError as error:  # what was checked before stays on the page, with its name
        show_error(error)
