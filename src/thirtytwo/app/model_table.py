"""The accuracy of all models in one table: measured ones beside estimates, with intervals."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thirtytwo.app.about_models import stated_accuracy
from thirtytwo.app.library import TAUGHT, Entry, info_of, projects
from thirtytwo.app.project import Project
from thirtytwo.app.taught_card import how_estimated
from thirtytwo.app.taught_result import Result
from thirtytwo.errors import ThirtytwoError
from thirtytwo.evaluation.metrics import measured
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_html, capitalized, interval, percent

_CARD = re.compile(
    r"^On test, n = (?P<n>[\d,]+)\..*?^\| Accuracy \| (?P<value>[^|]+) \| (?P<ends>[^|]+) \|$", re.M | re.S
)
"""Number of test images, accuracy and its interval in the card of a model."""


@dataclass(frozen=True)
class ModelRow:
    """What is known of a model's accuracy: value, 95 % interval and how it was found, as text."""

    name: str
    accuracy: str
    interval: str
    how: str


def model_rows(found: Iterable[Entry]) -> list[ModelRow]:
    """The accuracy of each model."""
    return [_row(entry) for entry in found]


def taught_project(entry: Entry) -> tuple[Project, Result] | None:
    """The project and the result of a taught model; None for other models."""
    if entry.origin != TAUGHT:
        return None
    try:
        project = projects().read(entry.path.parent.name)
    except ThirtytwoError:  # deleted by another session
        return None
    return None if project.result is None else (project, project.result)


def run_of(entry: Entry) -> RunDir | None:
    """The run directory of a model that was evaluated; None for other models."""
    run = RunDir(entry.path.parent)
    return run if entry.path.name == run.onnx.name and run.metrics.is_file() else None


def _row(entry: Entry) -> ModelRow:
    try:
        if (taught := taught_project(entry)) is not None:
            result = taught[1]
            if result.accuracy is None:
                return ModelRow(entry.name, "", "", f"not known: it {result.expectation}")
            return _with(entry, result.accuracy["value"], result.accuracy["ci95"], how_estimated(result.count))
        if (run := run_of(entry)) is not None:
            metrics = run.read_json(run.metrics)
            found = metrics["accuracy"]
            what = f"measured on {metrics['n']:,} {metrics['split']} images of {metrics['dataset']}"
            return _with(entry, found["value"], found.get("ci95"), what)
        info = info_of(entry)
        if (few := info.few_shot) is not None:  # of `thirtytwo teach`
            if few.accuracy is None:
                return ModelRow(entry.name, "", "", "not known: a class has a single image")
            return _with(entry, few.accuracy, few.ci95, how_estimated(sum(few.counts)))
        accuracy = info.accuracy
        if (known := stated_accuracy(entry))[0]:
            return ModelRow(entry.name, f"{known[0]}, stated", "", known[1])
        card = _CARD.search(_card_of(entry)) if accuracy is not None else None
        if card is not None and card["value"] == percent(accuracy or 0.0):
            what = f"measured on {card['n']} test images of {info.dataset}"
            return ModelRow(entry.name, card["value"], card["ends"], what)
    except ThirtytwoError as error:
        return ModelRow(entry.name, "", "", error.message)
    if accuracy is None:
        return ModelRow(entry.name, "", "", "not known")
    return _with(entry, accuracy, None, f"measured on test images of {info_of(entry).dataset}")


def _card_of(entry: Entry) -> str:
    """The model card beside a model file; empty where there is none."""
    try:
        return entry.path.with_suffix(".md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _with(entry: Entry, value: float, ends: Sequence[float] | None, how: str) -> ModelRow:
    return ModelRow(entry.name, percent(value), interval(ends) if ends else "", how)


def metrics_table(metrics: Mapping[str, Any], keys: Collection[str]) -> str:
    """Metrics with their intervals and what they mean, as HTML."""
    cells = "".join(
        f'<tr><th scope="row">{as_html(metric.name)}</th><td>{value}</td><td>{ends or "–"}</td>'
        f"<td>{as_html(capitalized(metric.meaning))}</td></tr>"
        for metric, value, ends in measured(metrics)
        if metric.key in keys
    )
    return (
        '<div class="tt-scroll" tabindex="0" role="region" aria-label="Metrics"><table class="tt-table"><thead><tr>'
        f'<th scope="col">Metric</th><th scope="col">Value</th><th scope="col">95\u00a0% interval</th>'
        f'<th scope="col">Meaning</th></tr></thead><tbody>{cells}</tbody></table></div>'
    )


def table_of(rows: Iterable[ModelRow]) -> str:
    """The table as HTML."""
    cells = "".join(
        f'<tr><th scope="row">{as_html(row.name)}</th><td>{as_html(row.accuracy or "–")}</td>'
        f"<td>{as_html(row.interval or '–')}</td><td>{as_html(row.how)}</td></tr>"
        for row in rows
    )
    return (
        '<div class="tt-scroll" tabindex="0" role="region" aria-label="Accuracy of all models"><table class="tt-table">'
        '<thead><tr><th scope="col">Model</th><th scope="col">Accuracy</th><th scope="col">95\u00a0% interval</th>'
        f'<th scope="col">How it was found</th></tr></thead><tbody>{cells}</tbody></table></div>'
    )
