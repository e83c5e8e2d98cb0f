"""The suggested fixes of the page Data, one at a time: the image, those it is compared with, and buttons to decide."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import streamlit as st

from thirtytwo.app.components import image_grid, with_errors
from thirtytwo.app.frame import announce
from thirtytwo.app.views import reviews
from thirtytwo.app.views.checked_data import CheckedData
from thirtytwo.app.views.data_images import MAX_MEMBERS, SMALL, figure, name_of, open_image
from thirtytwo.app.views.findings import sentence
from thirtytwo.app.views.fix_plan import show_plan
from thirtytwo.data.fixes import Fix
from thirtytwo.data.split import SPLIT_NAMES
from thirtytwo.doctor.base import Place
from thirtytwo.doctor.page import preview
from thirtytwo.doctor.review import Item, Review
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import as_html, as_markdown, capitalized, counted, readable

SHORTCUTS = {"accept": "A", "reject": "X", "previous": "Left", "next": "Right", "undo": "Z"}
"""Keys of the buttons; Streamlit reserves R."""
_MAX_TYPICAL = 5
_STATES = {True: ":green-badge[accepted]", False: ":gray-badge[rejected]", None: ":blue-badge[not decided]"}


@st.fragment  # a decision draws only this part anew
@with_errors
def show_review(checked: CheckedData) -> None:
    """Let the user decide on the suggested fixes one by one, and download the accepted ones as a plan."""
    review = checked.review
    decisions = [review.decision(index) for index in range(len(review.items))]
    reviews.keep(checked.identity, checked.names, checked.kept, decisions)
    st.header("Suggested fixes", anchor=False)
    reviews.show_changes(checked.before, checked.changed)
    for line in _left_out(review):
        st.caption(line)
    if not review.items:
        st.info("There is no fix to suggest.", icon=":material/task_alt:")
        return
    number, total = review.position + 1, len(review.items)
    accepted, rejected = review.count(accepted=True), review.count(accepted=False)
    decided = accepted + rejected
    counts = f"{accepted:,} accepted, {rejected:,} rejected, {total - decided:,} not decided"
    st.progress(decided / total, f"**{number:,} of {total:,}**: {counts}")
    announce(f"Fix {number:,} of {total:,}, {accepted:,} accepted: {_action(review.current.fix)}", "announce-fix")
    _show_buttons(review)
    _show_item(review)
    with st.expander("Accept or reject all fixes of a check"):
        for code in review.codes:
            _show_code(review, code)
    show_plan(review)


def _left_out(review: Review) -> Iterator[str]:
    """What is left as it is although there are findings, as sentences."""
    if review.test:
        yield f"{counted(review.test, 'test image')} with findings: left as they are, so that results stay comparable."
    if review.last:
        yield f"{counted(review.last, 'image')} with findings: left as they are, the last of their class in a split."


def _show_buttons(review: Review) -> None:
    """Show the buttons to decide on the current fix and to go to others.

    The buttons to decide name the fix that is shown: of two quick clicks, none decides on one that was not yet shown.
    """
    last = len(review.items) - 1
    with st.container(horizontal=True, key="decide", gap="small"):
        st.button(
            "Accept",
            type="primary",
            key="fix-accept",
            icon=":material/check:",
            shortcut=SHORTCUTS["accept"],
            on_click=review.decide,
            args=(True, review.position),
        )
        st.button(
            "Reject",
            key="fix-reject",
            icon=":material/close:",
            shortcut=SHORTCUTS["reject"],
            on_click=review.decide,
            args=(False, review.position),
        )
        st.button(
            "Previous",
            key="fix-previous",
            shortcut=SHORTCUTS["previous"],
            disabled=review.position == 0,
            on_click=review.go,
            args=(-1,),
        )
        st.button(
            "Next",
            key="fix-next",
            shortcut=SHORTCUTS["next"],
            disabled=review.position == last,
            on_click=review.go,
            args=(1,),
        )
        st.button(
            "Undo", key="fix-undo", shortcut=SHORTCUTS["undo"], disabled=not review.can_undo, on_click=review.undo
        )


def _show_item(review: Review) -> None:
    """Show the current fix: what is to be done and why, its image, and the images to compare it with."""
    item = review.current
    fix = item.fix
    with st.container(border=True, key="fix"):
        st.markdown(f"**{as_markdown(_action(fix))}** {_STATES[review.decision(review.position)]}")
        st.caption(f"{as_markdown(_place(fix))} · {as_markdown(_reason(fix))}: {sentence(fix.evidence)}")
        if item.place is not None and review.diagnosis.subject is not None:
            st.html(compared_images(review, review.diagnosis.subject, item, item.place))


def _action(fix: Fix) -> str:
    """What a fix does."""
    label, to = readable(fix.label), readable(fix.to)
    if fix.action == "drop":
        return f"Drop this image of “{label}”"
    return f"{capitalized(fix.action)} this image of “{label}” to “{to}”"


def _reason(fix: Fix) -> str:
    """Why a fix is suggested: the title of the check, without its code."""
    return fix.reason.partition(" ")[2] or fix.reason


def _place(fix: Fix) -> str:
    return f"{SPLIT_NAMES.get(fix.split, fix.split)} row {fix.image}" if fix.image.isdecimal() else fix.image


def compared_images(review: Review, subject: Subject, item: Item, place: Place) -> str:
    """The image of a fix and those it is compared with, as HTML."""
    roles = {one.place: _role(one.fix, review.decision(index)) for index, one in enumerate(review.items)}
    others = item.others[: MAX_MEMBERS - 1]
    figures = [figure(subject, place, "this image", "tt-this")]
    figures += [figure(subject, one, roles.get(one, "stays")) for one in others]
    more = len(item.others) - len(others)
    note = f'<p class="tt-soft">and {more:,} more</p>' if more else ""
    return f'<div class="tt-review">{"".join(figures)}</div>{note}{_typical(subject, item.fix, suggested=roles)}'


def _typical(subject: Subject, fix: Fix, suggested: Collection[Place | None]) -> str:
    """Images of the present and of the new class of an image that is relabeled, as HTML."""
    if fix.action != "relabel":
        return ""
    images, parts = subject.splits[fix.split], []
    for name in (fix.label, fix.to):
        positions = np.flatnonzero(images.labels == images.classes.index(name))
        some = positions[:: max(1, len(positions) // (2 * _MAX_TYPICAL))].tolist()
        places = [place for place in (Place(fix.split, position) for position in some) if place not in suggested]
        tiles = ((preview(subject, one, SMALL), readable(name), name_of(subject, one)) for one in places[:_MAX_TYPICAL])
        opens = [open_image(subject, one) for one in places[:_MAX_TYPICAL]]
        parts.append(f'<p class="tt-soft">Other images of {as_html(readable(name))}</p>{image_grid(tiles, opens)}')
    return "".join(parts)


def _role(fix: Fix, accepted: bool | None) -> str:
    """What is to become of an image: `drop suggested`."""
    return f"{fix.action} {'suggested' if accepted is None else 'accepted' if accepted else 'rejected'}"


def _show_code(review: Review, code: str) -> None:
    """Show how many fixes of a check are accepted, and buttons to decide on all of them."""
    reason = next(_reason(item.fix) for item in review.items if item.code == code)
    total, accepted = review.count(code), review.count(code, accepted=True)
    st.markdown(f"{as_markdown(capitalized(reason))}: {accepted:,} of {total:,} accepted")
    with st.container(horizontal=True, key=f"all-{code}", gap="small"):
        st.button("Accept all", key=f"accept-{code}", on_click=review.decide_all, args=(code, True))
        st.button("Reject all", key=f"reject-{code}", on_click=review.decide_all, args=(code, False))
        st.button("Show", key=f"show-{code}", type="tertiary", on_click=review.go_to, args=(code,))
