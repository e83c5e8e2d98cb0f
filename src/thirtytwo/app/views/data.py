"""The page Data: the findings of `data doctor`, and the suggested fixes to accept or reject one by one."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.components import image_grid, img_tag, show_error, title
from thirtytwo.app.decisions import Changes, Decisions, changes, fingerprint, place_of
from thirtytwo.app.frame import announce
from thirtytwo.app.originals import opening
from thirtytwo.app.run_images import openable_image
from thirtytwo.app.views import reviews
from thirtytwo.data.arrays import release_pages
from thirtytwo.data.fixes import Fix, encode_fix_plan
from thirtytwo.data.types import DATASETS
from thirtytwo.doctor.base import Check, Finding, Place, Severity
from thirtytwo.doctor.diagnose import diagnose
from thirtytwo.doctor.page import by_check, extent, preview, verdict
from thirtytwo.doctor.review import Item, Review
from thirtytwo.doctor.subject import Subject
from thirtytwo.errors import ThirtytwoError
from thirtytwo.text import as_html, as_markdown, as_printable, capitalized, counted, readable, shorten

SHORTCUTS = {"accept": "A", "reject": "X", "previous": "Left", "next": "Right", "undo": "Z"}
"""Keys of the buttons; Streamlit reserves R."""
_CHECKED = "checked data"
_ICONS: dict[Severity, str] = {"error": ":material/error:", "warning": ":material/warning:", "note": ":material/info:"}
_STATES = {True: ":green-badge[accepted]", False: ":gray-badge[rejected]", None: ":blue-badge[not decided]"}
_SIDE, _SMALL = 640, 160
"""Longer side of the image to decide on, and of those of a finding, in pixels."""
_MAX_FINDINGS, _MAX_GROUPS, _MAX_MEMBERS, _MAX_FILES, _MAX_TYPICAL = 10, 4, 6, 10, 5
_LONGEST = 600
"""Characters after which sentences about the data are shortened in the middle."""
_MAX_RECENT = 2
"""Number of checked data sets that reloading a page shows again without a new check."""


@dataclass(frozen=True, eq=False)
class _Checked:
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


def show() -> None:
    """Show the page."""
    title(
        "Check data",
        "Find duplicates, wrong labels, unreadable files and other problems of a data set, and decide which suggested "
        "fixes to apply. This page changes no file.",
    )
    _reopen()
    _show_form()
    checked: _Checked | None = st.session_state.get(_CHECKED)
    if checked is None:
        st.info(f"Enter a folder with one folder per class, or one of {_known_names()}.", icon=":material/folder_open:")
        reviews.show_earlier()
        return
    reviews.name_in_address(checked.identity)
    _show_findings(checked)
    _show_review(checked)


def _reopen() -> None:
    """Show the check again that the page's address names, with its decisions: after reloading the last one as it was.

    A check that takes minutes is not repeated without being asked for.
    """
    found = None if _CHECKED in st.session_state else reviews.named()
    if found is None:
        return
    reviews.fill_form(found)
    recent = None if reviews.wanted_anew() else _recent().get(found.identity)
    if recent is not None:
        review = recent.review.restarted(found.of(item.fix for item in recent.review.items))
        st.session_state[_CHECKED] = replace(recent, review=review, kept=dict(found.decided))
    elif found.thorough:
        kept = f"Your {counted(len(found.decided), 'decision')} on {found.spec} are kept."
        st.info(as_markdown(f"{kept} Check the data again to go on."), icon=":material/history:")
    else:
        try:
            with st.spinner("Checking …", show_time=True):
                st.session_state[_CHECKED] = _check(found.source, thorough=False)
        except ThirtytwoError as error:
            reviews.forget_address()
            show_error(error)


@st.cache_resource(show_spinner=False)
def _recent() -> dict[str, _Checked]:
    """The last checks of all sessions, by the identity of their decisions."""
    return {}


def _remember(checked: _Checked) -> None:
    recent = _recent()
    recent.pop(checked.identity, None)
    recent[checked.identity] = checked
    for identity in list(recent)[:-_MAX_RECENT]:
        recent.pop(identity, None)


def _known_names() -> str:
    return ", ".join(f"`{name}`" for name in DATASETS.names())


def _show_form() -> None:
    """Let the user choose a data set, and check it on request; an error of the data stops the page."""
    with st.form("doctor-form", border=False):
        label = "Data set or folder" if library.settings.is_local else "Data set"
        spec = st.text_input(
            label,
            key=reviews.SPEC,
            placeholder="my-images",
            help="A folder with one folder of images per class, a CSV file, or the name of a known data set",
            persist_state="session",
        )
        thorough = st.checkbox(
            "Also look for wrong labels, which takes minutes", key=reviews.THOROUGH, persist_state="session"
        )
        wanted = st.form_submit_button("Check", type="primary", icon=":material/fact_check:", key="doctor-check")
    if not wanted or not spec.strip():
        return
    if not reviews.may_check(spec.strip()):
        st.error(f"From another computer, only known data sets can be checked: {_known_names()}.")
        st.stop()
    with st.spinner("Checking …", show_time=True):
        st.session_state[_CHECKED] = _check(spec.strip(), thorough=thorough)


def _check(spec: str, *, thorough: bool) -> _Checked:
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
            groups = _shown_groups(findings)
            images[check.code] = _examples(subject, findings, groups)
            places[check.code] = tuple(place for group in groups for place in group)
        for part in subject.splits.values():
            release_pages(part.images)
    kept = {} if before is None else dict(before.decided)
    checked = _Checked(review, images, places, identity, names, kept, before, changed)
    _remember(checked)
    return checked


def _shown_groups(findings: Sequence[Finding]) -> list[tuple[Place, ...]]:
    """The first images of a check's findings by group; those that are alone in their group are together."""
    groups = [group for finding in findings for group in finding.groups]
    if all(len(group) == 1 for group in groups):
        groups = [tuple(place for group in groups[: 2 * _MAX_MEMBERS] for place in group)]
    return [group[: 2 * _MAX_MEMBERS] for group in groups[:_MAX_GROUPS] if group]


def _examples(subject: Subject, findings: Sequence[Finding], groups: Sequence[tuple[Place, ...]]) -> str:
    """The images of groups as HTML, each group in a grid of its own."""
    notes = {
        group[0]: f" · {note.removeprefix(f'labeled {subject.class_of(group[0])}, ')}"
        for finding in findings
        for group, note in zip(finding.groups, finding.notes, strict=False)
        if len(group) == 1
    }
    return "<hr>".join(
        image_grid(
            (
                (
                    preview(subject, place, _SMALL),
                    _class(subject, place),
                    _name(subject, place) + notes.get(place, ""),
                )
                for place in group
            ),
            [_opens(subject, place) for place in group],
        )
        for group in groups
    )


def _opens(subject: Subject, place: Place) -> str:
    """Let an image be opened; the key of its button, which is always the same."""
    folders = [] if subject.folder is None else [subject.folder]
    return openable_image(
        subject.splits[place.split],
        place.position,
        folders,
        identity=f"{subject.spec} {place.split}",
        caption=f"{_class(subject, place)} · {place.split}",
        rule="crop",
        viewer="The check",
    )


def _show_findings(checked: _Checked) -> None:
    """Show the findings of each check, most severe first: why they matter, what was found and what to do."""
    diagnosis = checked.review.diagnosis
    st.header("Findings", anchor=False)
    st.markdown(f"**{as_markdown(diagnosis.spec)}**: {as_markdown(verdict(diagnosis))}")
    announce(verdict(diagnosis))
    for check, findings in by_check(diagnosis.findings).items():
        severity, amount = findings[0].severity, extent(findings)
        heading = f"{capitalized(severity)} {check.code}: {check.title}" + (f", {amount}" if amount else "")
        with st.expander(as_markdown(heading), icon=_ICONS[severity]):
            _show_section(check, findings, checked.images.get(check.code, ""))
            for place in checked.places.get(check.code, ()):
                if diagnosis.subject is not None:
                    _opens(diagnosis.subject, place)


def _show_section(check: type[Check], findings: Sequence[Finding], images: str) -> None:
    for finding in findings[:_MAX_FINDINGS]:
        st.markdown(_sentence(finding.what))
        if finding.files:
            more = f" and {len(finding.files) - _MAX_FILES:,} more" if len(finding.files) > _MAX_FILES else ""
            st.caption(", ".join(map(_sentence, finding.files[:_MAX_FILES])) + more)
    if len(findings) > _MAX_FINDINGS:
        st.caption(f"And {len(findings) - _MAX_FINDINGS:,} more of this kind.")
    st.markdown(f"**Why it matters.** {as_markdown(check.why)}")
    for advice in dict.fromkeys(finding.fix for finding in findings[:_MAX_FINDINGS] if finding.fix):
        st.markdown(f"**What to do.** {_sentence(advice)}")
    if images:
        st.html(images)


def _sentence(text: str) -> str:
    return as_markdown(shorten(text, _LONGEST))


@st.fragment  # a decision draws only this part anew
def _show_review(checked: _Checked) -> None:
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
    number, total, accepted = review.position + 1, len(review.items), review.count(accepted=True)
    decided = accepted + review.count(accepted=False)
    st.progress(decided / total, f"**{number:,} of {total:,}, {accepted:,} accepted**, {total - decided:,} not decided")
    announce(f"Fix {number:,} of {total:,}, {accepted:,} accepted: {_action(review.current.fix)}", "announce-fix")
    _show_buttons(review)
    _show_item(review)
    with st.expander("Accept or reject all fixes of a check"):
        for code in review.codes:
            _show_code(review, code)
    _show_plan(review)


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
        st.caption(f"{as_markdown(_place(fix))} · {as_markdown(fix.reason)}: {_sentence(fix.evidence)}")
        if item.place is not None and review.diagnosis.subject is not None:
            st.html(_compared(review, review.diagnosis.subject, item, item.place))


def _action(fix: Fix) -> str:
    """What a fix does."""
    label, to = readable(fix.label), readable(fix.to)
    if fix.action == "drop":
        return f"Drop this image of “{label}”"
    return f"{capitalized(fix.action)} this image of “{label}” to “{to}”"


def _place(fix: Fix) -> str:
    return f"{fix.split} row {fix.image}" if fix.image.isdecimal() else fix.image


def _compared(review: Review, subject: Subject, item: Item, place: Place) -> str:
    """The image of a fix and those it is compared with, as HTML."""
    roles = {one.place: _role(one.fix, review.decision(index)) for index, one in enumerate(review.items)}
    others = item.others[: _MAX_MEMBERS - 1]
    figures = [_figure(subject, place, "this image", "tt-this")]
    figures += [_figure(subject, one, roles.get(one, "stays")) for one in others]
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
        tiles = ((preview(subject, one, _SMALL), readable(name), _name(subject, one)) for one in places[:_MAX_TYPICAL])
        opens = [_opens(subject, one) for one in places[:_MAX_TYPICAL]]
        parts.append(f'<p class="tt-soft">Other images of {as_html(readable(name))}</p>{image_grid(tiles, opens)}')
    return "".join(parts)


def _role(fix: Fix, accepted: bool | None) -> str:
    """What is to become of an image: `drop suggested`."""
    return f"{fix.action} {'suggested' if accepted is None else 'accepted' if accepted else 'rejected'}"


def _figure(subject: Subject, place: Place, role: str, kind: str = "") -> str:
    name, label = _name(subject, place), _class(subject, place)
    image = opening(img_tag(preview(subject, place, _SIDE), f"{label}, {name}"), _opens(subject, place), name)
    caption = f"<b>{as_html(label)}</b> · {role}<br><span>{as_html(name)}</span>"
    return f'<figure class="tt-tile {kind}">{image}{caption}</figure>'


def _class(subject: Subject, place: Place) -> str:
    """The label of an image as people read it."""
    return readable(subject.class_of(place))


def _name(subject: Subject, place: Place) -> str:
    """The file of an image, with its split where the folder does not say it; or its split and row."""
    name = subject.name_of(place)
    return name if name.startswith(place.split) else f"{place.split}, {name}"


def _show_code(review: Review, code: str) -> None:
    """Show how many fixes of a check are accepted, and buttons to decide on all of them."""
    reason = next(item.fix.reason for item in review.items if item.code == code)
    total, accepted = review.count(code), review.count(code, accepted=True)
    st.markdown(f"{as_markdown(reason)}: {accepted:,} of {total:,} accepted")
    with st.container(horizontal=True, key=f"all-{code}", gap="small"):
        st.button("Accept all", key=f"accept-{code}", on_click=review.decide_all, args=(code, True))
        st.button("Reject all", key=f"reject-{code}", on_click=review.decide_all, args=(code, False))
        st.button("Show", key=f"show-{code}", type="tertiary", on_click=review.go_to, args=(code,))


def _show_plan(review: Review) -> None:
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
