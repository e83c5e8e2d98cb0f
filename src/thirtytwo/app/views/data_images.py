"""Images of a data set on the page Data: as tiles and figures with their label and file, which open the photograph."""

from __future__ import annotations

from collections.abc import Sequence

from thirtytwo.app.components import image_grid, img_tag
from thirtytwo.app.originals import opening
from thirtytwo.app.run_images import openable_image
from thirtytwo.data.split import SPLIT_NAMES
from thirtytwo.doctor.base import Finding, Place
from thirtytwo.doctor.page import preview
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import as_html, readable

SMALL, _SIDE = 160, 640
"""Longer side of the images of a finding, and of the one to decide on, in pixels."""
MAX_MEMBERS, _MAX_GROUPS = 6, 4


def shown_groups(findings: Sequence[Finding]) -> list[tuple[Place, ...]]:
    """The first images of a check's findings by group; those that are alone in their group are together."""
    groups = [group for finding in findings for group in finding.groups]
    if all(len(group) == 1 for group in groups):
        groups = [tuple(place for group in groups[: 2 * MAX_MEMBERS] for place in group)]
    return [group[: 2 * MAX_MEMBERS] for group in groups[:_MAX_GROUPS] if group]


def examples(subject: Subject, findings: Sequence[Finding], groups: Sequence[tuple[Place, ...]]) -> str:
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
                    preview(subject, place, SMALL),
                    class_of(subject, place),
                    name_of(subject, place) + notes.get(place, ""),
                )
                for place in group
            ),
            [open_image(subject, place) for place in group],
        )
        for group in groups
    )


def open_image(subject: Subject, place: Place) -> str:
    """Let an image be opened; the key of its button, which is always the same."""
    folders = [] if subject.folder is None else [subject.folder]
    return openable_image(
        subject.splits[place.split],
        place.position,
        folders,
        identity=f"{subject.spec} {place.split}",
        caption=f"{class_of(subject, place)} · {SPLIT_NAMES.get(place.split, place.split)}",
        rule="crop",
        viewer="The check",
    )


def figure(subject: Subject, place: Place, role: str, kind: str = "") -> str:
    """An image as HTML, with its label, what is to become of it and its file; `kind` is one more class of CSS."""
    name, label = name_of(subject, place), class_of(subject, place)
    image = opening(img_tag(preview(subject, place, _SIDE), f"{label}, {name}"), open_image(subject, place), name)
    caption = f"<b>{as_html(label)}</b> · {role}<br><span>{as_html(name)}</span>"
    return f'<figure class="tt-tile {kind}">{image}{caption}</figure>'


def class_of(subject: Subject, place: Place) -> str:
    """The label of an image as people read it."""
    return readable(subject.class_of(place))


def name_of(subject: Subject, place: Place) -> str:
    """The file of an image, with its split where the folder does not say it; or its split and row."""
    name = subject.name_of(place)
    return name if name.startswith(place.split) else f"{SPLIT_NAMES.get(place.split, place.split)}, {name}"
