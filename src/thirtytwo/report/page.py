"""`report.html`: the report of a run as one self-contained file, for screen, phone and print, light and dark."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.metrics import confusion_matrix, measured, wilson
from thirtytwo.evaluation.next_steps import next_steps
from thirtytwo.io import write_text
from thirtytwo.report.charts import Line, confusion_chart, line_chart
from thirtytwo.report.enlarged import Photographs
from thirtytwo.report.figures import write_figures
from thirtytwo.report.gallery import Augmented, ImageAlbum, augmented_rows, make_album, most_confident_errors
from thirtytwo.report.run_record import RunRecord, read_run_record, typed_commands
from thirtytwo.report.sections import members_table, section_context
from thirtytwo.report.templating import render_template
from thirtytwo.report.views import CURVES, history_series
from thirtytwo.rundir import Predictions, RunDir
from thirtytwo.text import duration, interval, percent, quantity, readable

MAX_PAIRS = 12


def write_page(
    run: RunDir,
    images: ImageSet | None,
    split: str = "test",
    *,
    val: ImageSet | None = None,
    samples: Augmented | None = None,
    record: RunRecord | None = None,
) -> Path:
    """Write `report.html` and `figures/` from the files of a run directory; returns the path of the report.

    Missing files (of an interrupted run, without validation or without images) are stated in the report.

    Args:
        run: the run directory.
        images: the images of `split`; None leaves images out.
        split: the split that the report is about.
        val: the validation images, shown among the label issues.
        samples: training images before and after augmentation (`thirtytwo.training.batches.augment_samples`).
        record: the files of the run as read for `split`; read by default.

    Raises:
        RunError: there is no run, or one of its files is damaged.
    """
    record = record or read_run_record(run, split)
    write_figures(record)
    write_text(run.report, render(record, images, val=val, samples=samples))
    return run.report


def render(
    record: RunRecord,
    images: ImageSet | None,
    *,
    val: ImageSet | None = None,
    samples: Augmented | None = None,
    passed_on: bool = False,
) -> str:
    """Render the report as HTML. The template escapes all names; charts escape their own.

    With `passed_on` the report is meant to be read without the run directory, and names no path of this machine.
    """
    context = _context(record, images) | {
        "passed_on": passed_on,
        "command": record.command_with(record.run.recipe.name if passed_on else str(record.run.recipe)),
        "augmented": [] if samples is None else augmented_rows(samples, record.classes),
        "evaluations": [
            section_context(evaluator.key, evaluator.title, section, record, {"val": val, record.split: images})
            for evaluator, section in record.sections
        ],
    }
    return render_template("report.html.j2", context)


def _context(record: RunRecord, images: ImageSet | None) -> dict[str, Any]:
    predictions = record.predictions
    return {
        "dataset": record.dataset,
        "recipe_name": record.recipe.name,
        "split": record.split,
        "seed": record.recipe.seed,
        "classes": len(record.classes),
        "started": _date(record.environment.get("started")),
        "seconds": _seconds(record),
        "notices": _notices(record),
        "headline": _headline(record),
        "metric_rows": _metric_rows(record.metrics),
        "curves": history_charts(record.history),
        "smoothing": record.recipe.train.label_smoothing,
        "distilled": record.recipe.train.distill.run,
        "per_class": _class_rows(record),
        "superclasses": len(set(record.superclasses.values())),
        "severity": _severity(record.metrics),
        "pairs": _pairs(record),
        **(_of_predictions(record, predictions, images) if predictions is not None else _WITHOUT_PREDICTIONS),
        "members": members_table(record),
        **_reproduce(record),
    }


_WITHOUT_PREDICTIONS: dict[str, Any] = {
    "next_steps": None,
    "confusion": "",
    "group_confusion": "",
    "album": None,
    "wrong": None,
    "mistakes": [],
    "mistakes_problem": "",
}


def _of_predictions(record: RunRecord, predictions: Predictions, images: ImageSet | None) -> dict[str, Any]:
    """What to do next, confusion matrices, images and errors."""
    errors, problem = most_confident_errors(predictions, images, photographs=Photographs.of(record))
    return {
        "next_steps": _next_steps(record, predictions),
        "confusion": confusion_chart(confusion_matrix(predictions), record.classes, record.superclasses),
        "group_confusion": _group_confusion(predictions, record.superclasses),
        "album": _album(make_album(predictions, images, record.superclasses)),
        "wrong": int((~predictions.correct).sum()),
        "mistakes": errors,
        "mistakes_problem": problem,
    }


def _next_steps(record: RunRecord, predictions: Predictions) -> dict[str, Any]:
    """Advice, weak classes, confusions, and the number of labels to check on each split."""
    found = next_steps(predictions, record.out_of_sample)
    index = {name: number for number, name in enumerate(predictions.classes)}
    return {
        "advice": found.advice,
        "weak": [(one, index[one.name]) for one in found.weak],
        "confusions": [(one, f"{index[one.true]},{index[one.predicted]}") for one in found.confusions],
        "labels": [
            (record.split_names.get(part.split, part.split), len(part.positions), part.images)
            for part in found.labels or ()
        ],
    }


def _reproduce(record: RunRecord) -> dict[str, Any]:
    """Commands, choices and settings of the run."""
    return {
        "typed_command": "" if record.environment.get("members") else "\n".join(typed_commands(record.run)),
        "choices": record.environment.get("choices") or [],
        "made_of": _details(record),
        "skipped": record.data.get("skipped") or [],
        "recipe_text": record.run.recipe.read_text(encoding="utf-8"),
    }


def _album(album: ImageAlbum) -> dict[str, Any]:
    """The album for the template; its JSON text is safe inside a script element."""
    text = json.dumps(album.data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return {
        "text": text,
        "wrong": album.wrong,
        "shown": album.shown,
        "right": album.right,
        "note": album.note,
        "problem": album.problem,
    }


def _group_confusion(predictions: Predictions, superclasses: Mapping[str, str]) -> str:
    """The confusion matrix of superclasses; empty where there are none."""
    if not superclasses:
        return ""
    groups = sorted(set(superclasses.values()))
    group_of = np.array([groups.index(superclasses[name]) for name in predictions.classes])
    member = np.eye(len(groups), dtype=np.int64)[group_of]  # (C, G)
    return confusion_chart(member.T @ confusion_matrix(predictions) @ member, groups, of="groups")


def _severity(metrics: Mapping[str, Any] | None) -> dict[str, str] | None:
    found = (metrics or {}).get("mistake_severity")
    return found and {"value": percent(found["value"]), "interval": interval(found["ci95"])}


def _headline(record: RunRecord) -> dict[str, Any] | None:
    if record.metrics is None:
        return None
    metrics, tta = record.metrics, record.metrics.get("accuracy_tta")
    return {
        "value": percent(metrics["accuracy"]["value"]),
        "interval": interval(metrics["accuracy"]["ci95"]),
        "n": metrics["n"],
        "wrong": metrics["n"] - round(metrics["accuracy"]["value"] * metrics["n"]),
        "tta": None if tta is None else {"value": percent(tta["value"]), "interval": interval(tta["ci95"])},
        "test_evaluations": int(metrics.get("test_evaluations") or 0),
        "selects": record.recipe.train.keep == "best",
        "validation": next(
            (percent(row["val_accuracy"]) for row in record.history[::-1] if "val_accuracy" in row), None
        ),
    }


def _notices(record: RunRecord) -> list[str]:
    notices = []
    done, planned = len(record.history), record.recipe.schedule.epochs
    if record.interrupted:
        ended = (
            f"This run was interrupted after {done} of {planned} epochs."
            if done < planned
            else "This run did not finish."
        )
        notices.append(f"{ended} Resume it with: {record.run.resume_command(record.data.get('spec'))}")
    if record.metrics is not None and record.split != "test":
        notices.append(
            f"These metrics are on {record.split}, which was used for model selection. They are not test results."
        )
    if record.metrics is not None and record.split == "test" and int(record.metrics.get("test_evaluations") or 0) > 1:
        notices.append(
            f"There were {record.metrics['test_evaluations']} test evaluations. If anything was chosen after the first "
            "one, these metrics are optimistic."
        )
    if record.splits.get("train_on") == "all":
        notices.append(
            "This run trained on all of train, including validation: its validation metrics are optimistic. "
            "Temperature and threshold come from a calibration run that held validation out."
        )
    return notices


def _metric_rows(metrics: Mapping[str, Any] | None) -> list[dict[str, str]]:
    if metrics is None:
        return []
    return [
        {"name": metric.name, "value": value, "interval": ends, "meaning": metric.meaning}
        for metric, value, ends in measured(metrics)
    ]


def history_charts(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Charts of accuracy, loss and learning rate over epochs as SVG, those for which there are values."""
    charts = [
        line_chart(
            title,
            [
                Line("training", "train", history_series(history, f"train_{what}")),
                Line("validation", "val", history_series(history, f"val_{what}")),
            ],
            as_percent=what == "accuracy",
        )
        for what, title in CURVES
    ]
    charts.append(line_chart("Learning rate", [Line("", "train", history_series(history, "lr"))]))
    return [chart for chart in charts if chart]


def _class_rows(record: RunRecord) -> list[dict[str, Any]]:
    """Metrics per class, lowest F1 first, with the interval of recall."""
    if record.metrics is None:
        return []
    rows = []
    for row in record.metrics["per_class"]:
        support, recall = row["support"], row["recall"]
        ends = wilson(round((recall or 0.0) * support), support) if support else None
        rows.append(
            {
                **row,
                "class": readable(row["class"]),
                "index": record.classes.index(row["class"]),
                "superclass": readable(record.superclasses.get(row["class"], "")),
                "recall_interval": interval(list(ends)) if ends else "",
            }
        )
    return sorted(rows, key=lambda row: (row["f1"] is None, row["f1"] or 0.0))


def _pairs(record: RunRecord) -> list[dict[str, Any]]:
    if record.metrics is None:
        return []
    support = {row["class"]: row["support"] for row in record.metrics["per_class"]}
    pairs = record.metrics["confusions"][:MAX_PAIRS]
    most = max((pair["count"] for pair in pairs), default=1)
    return [
        {
            **pair,
            "true": readable(pair["true"]),
            "predicted": readable(pair["predicted"]),
            "cell": f"{record.classes.index(pair['true'])},{record.classes.index(pair['predicted'])}",
            "share": percent(pair["count"] / max(1, support[pair["true"]])),
            "bar": pair["count"] / most,
        }
        for pair in pairs
    ]


def _details(record: RunRecord) -> list[tuple[str, str]]:
    """Data, network and machine of the run as (name, value); what is not recorded is left out."""
    environment, data, splits = record.environment, record.data, record.splits
    hardware: Mapping[str, Any] = environment.get("hardware") or {}
    versions: Mapping[str, Any] = environment.get("versions") or {}
    seconds: Mapping[str, Any] = environment.get("seconds") or {}
    counts = [f"{part} {data[part]:,}" for part in ("train", "val", "test") if isinstance(data.get(part), int)]
    parameters, flops, peak = (environment.get(key) for key in ("parameters", "flops", "peak_memory_mb"))
    machine = [
        hardware.get("cpu"),
        f"{hardware['cores']} cores" if hardware.get("cores") else None,
        f"{hardware['memory_gb']:g} GB memory" if hardware.get("memory_gb") else None,
        hardware.get("gpu"),
    ]
    rows = [
        ("Data", data.get("spec") or record.dataset),
        ("Images", ", ".join(counts)),
        ("Fingerprint", data.get("fingerprint")),
        (
            "Validation",
            _validation_text(splits),
        ),
        ("Network", record.recipe.model.architecture),
        *record.origins,
        ("Parameters", quantity(parameters) if parameters else None),
        ("FLOPs per image", quantity(flops) if flops else None),
        ("Training time", duration(seconds["train"]) if seconds.get("train") is not None else None),
        ("Total time", duration(seconds["total"]) if seconds.get("total") is not None else None),
        ("Peak memory", f"{peak:,.0f} MB" if peak else None),
        ("Device", environment.get("device")),
        ("Machine", ", ".join(str(part) for part in machine if part)),
        ("Software", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(what, str(value)) for what, value in rows if value]


def _validation_text(splits: Mapping[str, Any]) -> str | None:
    if not splits:
        return None
    count = splits.get("n_val") or 0
    if splits.get("train_on") == "all":
        return "none: trained on all of train, calibrated by another run"
    if not count:
        return "none"
    if splits.get("val_rows"):
        return f"{count:,} images held out of train with seed {splits.get('seed')}, listed in split.json"
    return f"{count:,} images, the data's own split"


def _seconds(record: RunRecord) -> str | None:
    seconds = (record.environment.get("seconds") or {}).get("train")
    return None if seconds is None else duration(seconds)


def _date(started: object) -> str | None:
    """An ISO time as a date; other text unchanged."""
    if not started:
        return None
    try:
        moment = datetime.datetime.fromisoformat(str(started))
    except ValueError:
        return str(started)
    return f"{moment.day} {moment:%B %Y}"
