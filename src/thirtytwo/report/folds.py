"""Results of a cross-validation: predictions of every image out of its fold, metrics and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.data.run_data import content_of, recorded_hashes
from thirtytwo.errors import RunError
from thirtytwo.evaluation.metrics import METRICS, compute_metrics, confusion_matrix, wilson
from thirtytwo.evaluation.sections import Table, table_of
from thirtytwo.evaluation.statistics import mean_interval
from thirtytwo.images.content import Hashes
from thirtytwo.io import write_text
from thirtytwo.predictions import Predictions
from thirtytwo.report.charts import Row, confusion_chart, interval_chart
from thirtytwo.report.seeds import SECONDS, cross_validation_sentences, summary_rows
from thirtytwo.report.templating import render_template
from thirtytwo.run_paths import OUT_OF_FOLD
from thirtytwo.rundir import RunDir
from thirtytwo.text import duration, interval, percent, readable


def write_out_of_fold(parent: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write `predictions-out-of-fold.parquet`, `metrics-out-of-fold.json` and `report.html` of finished folds.

    Args:
        parent: directory that holds the runs.
        content: content of `summary.json` of finished folds.

    Returns:
        The entry `cross_validation` of `summary.json`: `mean_accuracy`, the mean over folds with Student's interval
        (`evaluation.statistics.mean_interval`), and `out_of_fold`, the metrics of all predictions: the interval of
        their accuracy is Wilson's.

    Raises:
        RunError: the runs have different classes, or one of their files is damaged.
    """
    runs = [RunDir(parent / run["directory"]) for run in content["runs"]]
    predictions, hashes = gather_predictions(runs)
    directory = RunDir(parent)
    directory.write_predictions(OUT_OF_FOLD, predictions, content_of(predictions.rows, hashes))
    data = runs[0].read_json(runs[0].environment)["data"]
    metrics = compute_metrics(
        predictions,
        dataset=data.get("name") or data["spec"],
        split=OUT_OF_FOLD,
        superclasses=data.get("superclasses"),
        test_evaluations=1,
    )
    directory.write_json(directory.metrics_on(OUT_OF_FOLD), metrics)
    accuracies = [run["accuracy"] for run in content["runs"]]
    ends = mean_interval(accuracies)
    found = {
        "mean_accuracy": {
            "value": float(np.mean(accuracies)),
            "ci95": None if ends is None else [max(0.0, ends[0]), min(1.0, ends[1])],
        },
        "out_of_fold": {"n": metrics["n"], **{one.key: metrics[one.key] for one in METRICS if metrics.get(one.key)}},
    }
    write_text(directory.report, render_folds({**content, "cross_validation": found}, metrics, predictions))
    return found


def gather_predictions(runs: Sequence[RunDir]) -> tuple[Predictions, Hashes]:
    """The predictions of all folds by row, and the content hash of each image, uint64 `(N,)`.

    Raises:
        RunError: the runs have different classes, two of them predict the same image, or one of their files is damaged.
    """
    parts = [run.read_predictions("test") for run in runs]
    hashes = [_hashes_of(run, part) for run, part in zip(runs, parts, strict=True)]
    if any(part.classes != parts[0].classes for part in parts):
        raise RunError(f"The runs in {runs[0].path.parent} have different classes.", "Train the folds again.")
    rows = np.concatenate([part.rows for part in parts])
    if len(np.unique(rows)) < len(rows):
        raise RunError(f"Two runs in {runs[0].path.parent} predict the same images.", "Train the folds again.")
    order = np.argsort(rows)
    files = [name for part in parts for name in part.files or ()]
    found = Predictions(
        classes=parts[0].classes,
        truth=np.concatenate([part.truth for part in parts])[order],
        probabilities=np.concatenate([part.probabilities for part in parts])[order],
        rows=rows[order],
        files=tuple(files[place] for place in order) if len(files) == len(rows) else None,
    )
    return found, np.concatenate(hashes)[order]


def _hashes_of(run: RunDir, predictions: Predictions) -> Hashes:
    """The content hash of each predicted image of a fold."""
    hashes = recorded_hashes(run, "test")
    rows = np.array(run.read_json(run.split)["test"]["rows"], dtype=np.int64)
    if hashes is None or not np.isin(predictions.rows, rows).all():
        raise RunError(f"{run.split} and {run.predictions('test').name} do not match.", "Train this fold again.")
    order = np.argsort(rows)
    return hashes[order[np.searchsorted(rows[order], predictions.rows)]]


def render_folds(content: Mapping[str, Any], metrics: Mapping[str, Any], predictions: Predictions) -> str:
    """The page of a finished cross-validation as HTML. The template escapes all names; charts escape their own."""
    return render_template(
        "folds.html.j2",
        {
            "dataset": metrics["dataset"],
            "recipe": content["asked"].get("recipe") or "chosen by the data",
            "folds": content["folds"],
            "count": metrics["n"],
            "sentences": cross_validation_sentences(content),
            "chart": _chart(content),
            "metrics": table_of(("metric", "mean", "std", "n", "min", "max"), summary_rows(content)),
            "runs": _runs_table(content),
            "classes": _classes_table(metrics),
            "confusion": confusion_chart(confusion_matrix(predictions), predictions.classes),
            "confusion_width": 200 + 80 * len(predictions.classes),
        },
    )


def _chart(content: Mapping[str, Any]) -> str:
    rows = [_row(f"Fold {run['fold']}", run["accuracy"], run["accuracy_ci95"]) for run in content["runs"]]
    found = content["cross_validation"]
    mean, every = found["mean_accuracy"], found["out_of_fold"]["accuracy"]
    rows += [_row("Mean", mean["value"], mean["ci95"])] if mean["ci95"] else []
    return interval_chart("Accuracy by fold", [*rows, _row("All images", every["value"], every["ci95"])])


def _row(label: str, value: float, ends: Sequence[float]) -> Row:
    return Row(label, value, ends[0], ends[1], f"{label}: {percent(value)}, {interval(list(ends))}")


def _runs_table(content: Mapping[str, Any]) -> Table:
    rows = [
        (
            run["directory"],
            f"{run['n']:,}",
            percent(run["accuracy"]),
            interval(run["accuracy_ci95"]),
            "–" if run[SECONDS] is None else duration(run[SECONDS]),
        )
        for run in content["runs"]
    ]
    return table_of(("run", "images", "accuracy", "95\u00a0% interval", "training time"), rows)


def _classes_table(metrics: Mapping[str, Any]) -> Table:
    """Metrics of each class out of its fold, lowest recall first."""
    rows = []
    for row in sorted(metrics["per_class"], key=lambda row: (row["recall"] is None, row["recall"] or 0.0)):
        if row["support"]:
            ends = wilson(round((row["recall"] or 0.0) * row["support"]), row["support"])
            texts = [percent(row[key]) if row[key] is not None else "–" for key in ("recall", "precision", "f1")]
            rows.append((readable(row["class"]), f"{row['support']:,}", texts[0], interval(list(ends)), *texts[1:]))
    return table_of(("class", "images", "recall", "95\u00a0% interval", "precision", "F1"), rows)
