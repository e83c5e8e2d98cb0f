"""A diagnosis as JSON and as a table of files."""

from __future__ import annotations

from typing import Any

from thirtytwo.doctor.base import CHECKS, Finding, Place
from thirtytwo.doctor.diagnose import Diagnosis
from thirtytwo.doctor.subject import Subject

COLUMNS = ("code", "severity", "group", "split", "file", "class", "note")
"""Columns of the table of files; images without a file are named by their row."""


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as one JSON object, for `--format json`."""
    subject = diagnosis.subject
    return {
        "data": diagnosis.spec,
        "images": None if subject is None else {name: len(images) for name, images in subject.splits.items()},
        "classes": None if subject is None else list(subject.data.classes),
        "checks": list(diagnosis.ran),
        "findings": [_finding(finding, subject) for finding in diagnosis.findings],
    }


def _finding(finding: Finding, subject: Subject | None) -> dict[str, Any]:
    return {
        "code": finding.code,
        "title": finding.check.title,
        "severity": finding.severity,
        "what": finding.what,
        "why": finding.check.why,
        "fix": finding.fix,
        "groups": [[_image(place, subject) for place in group] for group in finding.groups] if subject else [],
        "notes": list(finding.notes),
        "files": list(finding.files),
    }


def _image(place: Place, subject: Subject) -> dict[str, Any]:
    return {"split": place.split, "file": subject.name_of(place), "class": subject.class_of(place)}


def file_rows(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """One row for each image of each finding, in the order of `COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for finding in diagnosis.findings:
        start = (finding.code, finding.severity)
        rows += [(*start, "", "", file, "", "") for file in finding.files]
        if diagnosis.subject is None:
            continue
        for number, group in enumerate(finding.groups):
            note = finding.notes[number] if finding.notes else ""
            for place in group:
                image = _image(place, diagnosis.subject)
                rows.append((*start, str(number + 1), image["split"], image["file"], image["class"], note))
    return rows


def described_checks() -> list[tuple[str, str, str]]:
    """Code, severity and title of every check."""
    return [(check.code, check.severity, check.title) for check in map(CHECKS.get, CHECKS)]
