"""A data set that was checked on the page Data: its findings with images, and its fixes with earlier decisions."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.decisions import Changes, Decisions, changes, fingerprint, place_of
from thirtytwo.app.views import reviews
from thirtytwo.app.views.data_images import examples, shown_groups
from thirtytwo.data.arrays import release_pages
from thirtytwo.doctor.base import Place
from thirtytwo.doctor.diagnose import diagnose
from thirtytwo.doctor.page import by_check
from thirtytwo.doctor.review import Review

_MAX_RECENT = 2
"""Number of checked data sets that reloading a page shows again without a new check."""


@dataclass(frozen=True, eq=False)
class CheckedData:
    """A data set that was checked, and the images of each check's findings as HTML."""

    review: Review
    images: dict[str, str]
    places: dict[str, tuple[Place, ...]]
    """The images that are shown of each check's findings, which can be opened."""
    identity: str
    """Identity of the decisions, which are kept on disk."""
    names: tuple[str, ...]
    """Fingerprint of each suggested fix."""
    kept: dict[str, bool]
    """The decisions as they are stored, by fingerprint."""
    before: Decisions | None
    changed: Changes
    """What was kept before this check, and how the suggestions differ from then."""


def check_data(spec: str, *, thorough: bool) -> CheckedData:
    """Examine a data set, and store what is suggested; kept decisions on the same suggestions go on.

    Raises:
        DataError: there is no such data set, or it is not on this machine.
        MissingExtraError: a check needs a library that is not installed.
        OutputError: the suggestions cannot be stored.
    """
    identity = reviews.identity_for(spec)
    before = reviews.store().read(identity)
    review = Review(diagnose(spec, data_root=library.settings.data_root, costly=thorough))
    fixes = [item.fix for item in review.items]
    names, changed = tuple(map(fingerprint, fixes)), Changes()
    if before is not None:
        review = review.restarted(before.of(fixes))
        changed = changes(before, fixes) if before.thorough == thorough else changed
    now = Decisions(identity=identity, spec=spec, place=place_of(spec), thorough=thorough, suggested=names)
    reviews.store().put(now)
    subject = review.diagnosis.subject
    images, places = {}, {}
    if subject is not None:
        for check, findings in by_check(review.diagnosis.findings).items():
            groups = shown_groups(findings)
            images[check.code] = examples(subject, findings, groups)
            places[check.code] = tuple(place for group in groups for place in group)
        for part in subject.splits.values():
            release_pages(part.images)
    kept = {} if before is None else dict(before.decided)
    checked = CheckedData(review, images, places, identity, names, kept, before, changed)
    _remember(checked)
    return checked


@st.cache_resource(show_spinner=False)
def recent_checks() -> dict[str, CheckedData]:
    """The last checks of all sessions, by the identity of their decisions."""
    return {}


def _remember(checked: CheckedData) -> None:
    recent = recent_checks()
    recent.pop(checked.identity, None)
    recent[checked.identity] = checked
    for identity in list(recent)[:-_MAX_RECENT]:
        recent.pop(identity, None)
