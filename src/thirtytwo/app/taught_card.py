"""The metrics and the model card of a taught model: estimates by cross-validation, and said to be so."""

from __future__ import annotations

from typing import Any

from thirtytwo.app.project import Project
from thirtytwo.app.taught_result import Result
from thirtytwo.evaluation.metrics import compute_metrics, measured
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.text import as_markdown, counted, readable

METRICS = ("accuracy", "macro_f1", "macro_precision", "macro_recall", "ece")
"""Metrics that are shown; others say little about a few images."""


def how_estimated(images: int) -> str:
    """How the metrics of a model of that many images were estimated, as a phrase."""
    return f"estimated: each of {counted(images, 'image')} was classified by a model that had not seen it"


def technical_details(result: Result) -> str:
    """How a model was trained and its accuracy estimated, in technical terms."""
    how = f" The accuracy was estimated by {result.folds}-fold cross-validation." if result.folds else ""
    return f"A linear probe on the features of {result.base}. {' '.join(result.notes)}{how}"


def estimated_metrics(result: Result) -> dict[str, Any] | None:
    """Metrics in the form of `metrics.json`, of the predictions of cross-validation; None without an estimate.

    The interval of the accuracy is the one shown with the result, which allows for images of the same scene.
    """
    if result.held_out is None or result.accuracy is None:
        return None
    found = compute_metrics(result.held_out, dataset="taught", split="cross-validation", test_evaluations=0)
    return found | {"accuracy": result.accuracy}


def taught_card(project: Project, result: Result, info: ModelInfo, metrics: dict[str, Any] | None) -> str:
    """The model card as Markdown.

    Args:
        project: the project that the model was taught in.
        result: what it was taught, and what to expect of it.
        info: metadata of the model file.
        metrics: what `estimated_metrics` found.
    """
    names = [as_markdown(readable(name)) for name in result.names]
    parts = [
        f"# {' or '.join(names)}",
        _summary(result),
        "## Images\n\n| class | images |\n| --- | --- |\n"
        + "\n".join(f"| {name} | {len(one.digests)} |" for name, one in zip(names, result.classes, strict=True)),
        _metrics(result, metrics),
        _limitations(info),
        f"## Technical details\n\n{as_markdown(technical_details(result))}",
    ]
    return "\n\n".join(parts) + "\n"


def _summary(result: Result) -> str:
    images, base = counted(result.count, "image"), as_markdown(result.base)
    return f"An image classifier with {len(result.names)} classes, learned from {images} on top of the model {base}."


def _metrics(result: Result, metrics: dict[str, Any] | None) -> str:
    if metrics is None:
        return f"## Metrics\n\nThe accuracy {as_markdown(result.expectation)}."
    rows = [f"| {one.name} | {value} | {ends} |" for one, value, ends in measured(metrics) if one.key in METRICS]
    table = "\n".join(["| metric | value | 95\u00a0% interval |", "| --- | --- | --- |", *rows])
    return (
        f"## Metrics\n\n{how_estimated(result.count).capitalize()}. The model itself has seen all of these images, so "
        f"this is what to expect of new images, not a measurement on a test set.\n\n{table}"
    )


def _limitations(info: ModelInfo) -> str:
    unknown = (
        "Not all images of other things are marked as unknown: those that resemble one of the classes are mostly given "
        "that class. If such images will come, teach a class “other” with them."
        if info.unknown_threshold is not None
        else "It does not notice images of other things, and gives them one of its classes."
    )
    return (
        "## Limitations\n\n- Several images of the same scene make the estimates optimistic.\n"
        "- Photographs of other places, cameras or light than in the images above may be classified worse.\n"
        f"- {unknown}"
    )
