"""A diagnosis as one self-contained HTML page, with the images of each finding side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from thirtytwo.doctor.base import CHECKS, SEVERITIES, Check, Finding, Place, Severity
from thirtytwo.doctor.diagnose import Diagnosis
from thirtytwo.doctor.subject import Subject
from thirtytwo.errors import ImageError
from thirtytwo.images.decode import load_preview
from thirtytwo.images.pixels import Pixels
from thirtytwo.report.templating import render_template
from thirtytwo.report.thumbnails import Thumbnail, thumbnails
from thirtytwo.text import as_printable, counted, listing, shorten

IMAGE_BUDGET = 11_000_000
"""Largest number of characters of the page for images; texts take less than 3 million."""
PREVIEW_SIDE = 320
"""Longer side to which photographs are reduced before their size on the page is chosen, in pixels."""
MAX_IMAGES = 1_000
MAX_GROUPS = 60
MAX_MEMBERS = 12
MAX_FILES = 100
MAX_FINDINGS = 40
"""Largest numbers shown: of images on the page, of groups and files of a finding, of images of a group, of findings of
a check."""
FEWER_GROUPS = (MAX_GROUPS, 48, 36, 24, 16, 12, 8, 4, 2, 1)
"""Groups shown of each finding: the first number with which the images are at most `MAX_IMAGES`."""
FIRST_GROUPS, FIRST_SINGLES = 6, 24
"""Groups of a finding, and images where each is a group of its own, that are shown before one asks for more."""
SAME = "T1"
"""Start of the codes of checks whose groups are images of the same thing, so that labels and splits should agree."""
LONGEST_TEXT, LONGEST_NAME = 1_500, 240
"""Characters after which sentences, and names and notes, are shortened in the middle."""


@dataclass(frozen=True)
class _Shown:
    """A finding and the first of its groups, each with at most `MAX_MEMBERS` images."""

    finding: Finding
    groups: tuple[tuple[Place, ...], ...]


def render_diagnosis(diagnosis: Diagnosis) -> str:
    """Render a diagnosis as HTML of at most 15 MB. The template escapes all names.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    found = by_check(diagnosis.findings)
    shown = _choose_groups(diagnosis, [findings[:MAX_FINDINGS] for findings in found.values()])
    encoded = _thumbnails(diagnosis.subject, chain.from_iterable(shown))
    sections = [
        _section(check, found[check], part, diagnosis.subject, encoded)
        for check, part in zip(found, shown, strict=True)
    ]
    return render_template("doctor.html.j2", {**_summary(diagnosis), "sections": sections})


def by_check(findings: Sequence[Finding]) -> dict[type[Check], list[Finding]]:
    """The findings of each check; checks in the order of their first, most severe finding."""
    found: dict[type[Check], list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.check, []).append(finding)
    return found


def _choose_groups(diagnosis: Diagnosis, findings: Sequence[Sequence[Finding]]) -> list[list[_Shown]]:
    """The groups of each finding that the page shows: as many of each as leave room for those of the others."""
    shown: list[list[_Shown]] = []
    for most in FEWER_GROUPS:
        shown = [[_Shown(finding, _first(diagnosis.subject, finding, most)) for finding in part] for part in findings]
        if sum(len(group) for one in chain.from_iterable(shown) for group in one.groups) <= MAX_IMAGES:
            break
    return shown


def _first(subject: Subject | None, finding: Finding, most: int) -> tuple[tuple[Place, ...], ...]:
    groups = finding.groups[:most]
    return tuple(group[:MAX_MEMBERS] if subject is None else subject.typical(group, MAX_MEMBERS) for group in groups)


def _thumbnails(subject: Subject | None, shown: Iterable[_Shown]) -> dict[Place, Thumbnail]:
    """Thumbnails of the images of the shown groups; those that do not fit the page are missing."""
    if subject is None:
        return {}
    places = [place for one in shown for group in one.groups for place in group]  # as often as they are on the page
    previews = {place: preview(subject, place) for place in places}
    return dict(zip(places, thumbnails([previews[place] for place in places], IMAGE_BUDGET), strict=False))


def preview(subject: Subject, place: Place, side: int = PREVIEW_SIDE) -> Pixels:
    """An image as people see it, uint8 `(H, W, 3)`: whole and from its file if it has one, else as decoded.

    The longer side of one from a file is at most `side` pixels.
    """
    images = subject.splits[place.split]
    if images.files is not None and subject.folder is not None:
        try:
            return load_preview(subject.folder / images.files[place.position], side)
        except ImageError:  # changed since it was read
            pass
    decoded: Pixels = images.images[place.position]
    return decoded


def _section(
    check: type[Check],
    findings: Sequence[Finding],
    shown: Sequence[_Shown],
    subject: Subject | None,
    encoded: Mapping[Place, Thumbnail],
) -> dict[str, Any]:
    """What the template shows of the findings of a check."""
    return {
        "code": check.code,
        "title": check.title,
        "why": check.why,
        "severity": findings[0].severity,
        "count": len(findings),
        "shown": len(shown),
        "extent": extent(findings),
        "findings": _merged([_finding(one, subject, encoded) for one in shown]),
    }


def _merged(findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Findings of text alone that follow each other, such as files that cannot be read, as one with the same advice."""
    merged: list[dict[str, Any]] = []
    for finding in findings:
        plain = not finding["total"] and not finding["file_count"]
        kind = (finding["severity"], finding["fix"]) if plain else None
        if plain and merged and merged[-1]["kind"] == kind:
            merged[-1]["sentences"].append(finding["what"])
        else:
            merged.append(finding | {"kind": kind, "sentences": [finding["what"]]})
    return merged


def extent(findings: Sequence[Finding]) -> str:
    """How much was found: `17 groups, 34 images`; the number of findings where they name and count nothing."""
    groups = [group for finding in findings for group in finding.groups]
    images = sum(sum(map(len, finding.groups)) or finding.images for finding in findings)
    files = sum(len(finding.files) for finding in findings)
    classes = sum(finding.classes for finding in findings)
    parts = [counted(len(groups), "group")] if images > len(groups) > 1 else []
    parts += [counted(images, "image")] if images else []
    parts += [counted(files, "file")] if files else []
    parts += [f"{classes:,} class{'' if classes == 1 else 'es'}"] if classes else []
    return ", ".join(parts) or counted(len(findings), "finding")


def _finding(shown: _Shown, subject: Subject | None, encoded: Mapping[Place, Thumbnail]) -> dict[str, Any]:
    finding = shown.finding
    groups = [_group(finding, *one, subject, encoded) for one in enumerate(shown.groups)] if subject else []
    single = all(len(group) == 1 for group in finding.groups)
    first = FIRST_SINGLES if single else FIRST_GROUPS
    first = len(groups) if len(groups) <= first + 2 else first  # not worth a click
    return {
        "severity": finding.severity,
        "what": _short(finding.what, LONGEST_TEXT),
        "fix": _short(finding.fix, LONGEST_TEXT),
        "groups": groups[:first],
        "more": groups[first:],
        "total": len(finding.groups),
        "single": single,
        "unit": "images" if single else "groups",
        "files": [_short(file, LONGEST_NAME) for file in finding.files[:MAX_FILES]],
        "file_count": len(finding.files),
    }


def _group(
    finding: Finding,
    number: int,
    group: Sequence[Place],
    subject: Subject,
    encoded: Mapping[Place, Thumbnail],
) -> dict[str, Any]:
    whole = finding.groups[number]
    note = _short(finding.notes[number], LONGEST_NAME) if finding.notes else ""
    same = finding.check.code.startswith(SAME)
    labels_differ, splits_differ = same and subject.labels_differ(whole), same and subject.splits_differ(whole)
    about = [
        (note, "note"),
        ("labels differ" if labels_differ else "", "tag"),
        ("across splits" if splits_differ else "", "tag quiet"),
        (f"{len(group)} of {len(whole):,} images shown" if len(group) < len(whole) else "", "cut"),
    ]
    return {
        "number": number + 1,
        "note": note.removeprefix(f"labeled {subject.class_of(group[0])}, ") if len(group) == 1 else note,
        "about": [(phrase, kind) for phrase, kind in about if phrase],
        "labels_differ": labels_differ,
        "splits_differ": splits_differ,
        "images": [_image(place, subject, encoded.get(place)) for place in group],
    }


def _image(place: Place, subject: Subject, thumbnail: Thumbnail | None) -> dict[str, Any]:
    name = subject.splits[place.split].name_of(place.position)
    return {
        "split": place.split,
        "class": _short(subject.shown_classes[subject.label(place)], LONGEST_NAME),
        "name": _short(name, LONGEST_NAME),
        "thumbnail": thumbnail,
    }


def _summary(diagnosis: Diagnosis) -> dict[str, Any]:
    subject, ran = diagnosis.subject, set(diagnosis.ran)
    classes = () if subject is None else subject.shown_classes
    found = {finding.code for finding in diagnosis.findings}
    known = [CHECKS.get(code) for code in CHECKS]
    return {
        "name": _short(diagnosis.spec, LONGEST_NAME),
        "heading": _short(_heading(diagnosis), LONGEST_NAME),
        "splits": [] if subject is None else [(name, len(images)) for name, images in subject.splits.items()],
        "total": 0 if subject is None else len(subject.places),
        "classes": len(classes),
        "class_names": _short(listing(classes, quoted=False), LONGEST_TEXT),
        "counts": [(severity, diagnosis.count(severity)) for severity in SEVERITIES],
        "verdict": verdict(diagnosis),
        "ran": [check for check in known if check.code in ran],
        "clean": [check for check in known if check.code in ran and check.code not in found],
        "left_out": [check for check in known if check.code not in ran and check.code not in found],
    }


def _heading(diagnosis: Diagnosis) -> str:
    """The name of the data set; of one that could not be loaded, the last part of what the user gave."""
    if diagnosis.data is not None:
        return diagnosis.data.name
    return diagnosis.spec.rstrip("/").rpartition("/")[2] or diagnosis.spec


def verdict(diagnosis: Diagnosis) -> str:
    """The diagnosis in a sentence."""
    if diagnosis.subject is None:
        return "This data cannot be used: nothing could be checked."
    if not diagnosis.findings:
        return f"No findings: {counted(len(diagnosis.ran), 'check')} found nothing to correct."
    counts: list[tuple[Severity, int]] = [(severity, diagnosis.count(severity)) for severity in SEVERITIES]
    found = listing([counted(count, severity) for severity, count in counts if count], quoted=False)
    usable = "Parts of this data cannot be used" if diagnosis.count("error") else "This data can be used for training"
    if diagnosis.is_blocked:
        usable = "This data cannot be used for training as it is"
    return f"{usable}: {found}."


def _short(text: str, most: int) -> str:
    """A text of the data at most `most` characters long, with invisible characters as escape sequences."""
    return as_printable(shorten(text, most))
