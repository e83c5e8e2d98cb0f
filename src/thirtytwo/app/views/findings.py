"""The findings of the page Data: what was found, why it matters, what to do, and images."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from thirtytwo.app.advice import in_technical_terms, title_of, what_to_do, what_was_found, why_it_matters
from thirtytwo.app.frame import announce
from thirtytwo.app.problems import plain
from thirtytwo.app.views.checked_data import CheckedData
from thirtytwo.app.views.data_images import open_image
from thirtytwo.doctor.base import Check, Finding, Severity
from thirtytwo.doctor.page import by_check, extent, verdict
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import as_markdown, capitalized, shorten

_MAX_FINDINGS, _MAX_FILES = 10, 10
_ICONS: dict[Severity, str] = {"error": ":material/error:", "warning": ":material/warning:", "note": ":material/info:"}
_LONGEST = 600
"""Characters after which sentences about the data are shortened in the middle."""


def show_findings(checked: CheckedData) -> None:
    """Show the findings of each check, most severe first: why they matter, what was found and what to do.

    Errors are open, as nothing else says why the data cannot be used.
    """
    diagnosis = checked.review.diagnosis
    st.header("Findings", anchor=False)
    st.markdown(f"**{as_markdown(diagnosis.spec)}**: {as_markdown(verdict(diagnosis))}")
    announce(verdict(diagnosis))
    for check, findings in by_check(diagnosis.findings).items():
        severity, amount = findings[0].severity, extent(findings)
        heading = f"{capitalized(severity)}: {title_of(check, findings)}" + (f", {amount}" if amount else "")
        with st.expander(as_markdown(heading), expanded=severity == "error", icon=_ICONS[severity]):
            _show_section(check, findings, diagnosis.subject, checked.images.get(check.code, ""))
            for place in checked.places.get(check.code, ()):
                if diagnosis.subject is not None:
                    open_image(diagnosis.subject, place)


def _show_section(check: type[Check], findings: Sequence[Finding], subject: Subject | None, images: str) -> None:
    """Show the findings of a check; where they need different things to be done, each advice is below its own."""
    some = findings[:_MAX_FINDINGS]
    by_advice: dict[str, list[Finding]] = {}
    for finding in some:
        by_advice.setdefault(what_to_do(finding, subject), []).append(finding)
    why = f"**Why it matters.** {as_markdown(why_it_matters(check))}"
    if len(by_advice) > 1:
        st.markdown(why)
    for advice, found in by_advice.items():
        for finding in found:
            _show_what(finding)
        if len(by_advice) == 1:
            st.markdown(why)
        if advice:
            st.markdown(f"**What to do.** {sentence(advice)}")
    if len(findings) > _MAX_FINDINGS:
        st.caption(f"And {len(findings) - _MAX_FINDINGS:,} more of this kind.")
    terms = " ".join(dict.fromkeys(filter(None, map(in_technical_terms, some))))
    about = f"Technical details: this is the check {as_markdown(check.code)} of the documentation. {sentence(terms)}"
    st.caption(about.rstrip())
    if images:
        st.html(images)


def _show_what(finding: Finding) -> None:
    """Show what was found, and the first files concerned."""
    st.markdown(sentence(what_was_found(finding)))
    if finding.files:
        more = f" and {len(finding.files) - _MAX_FILES:,} more" if len(finding.files) > _MAX_FILES else ""
        st.caption(", ".join(map(sentence, finding.files[:_MAX_FILES])) + more)


def sentence(text: str) -> str:
    """A sentence about the data as Markdown, shortened in the middle if it is long."""
    return as_markdown(shorten(plain(text, added=False), _LONGEST))
