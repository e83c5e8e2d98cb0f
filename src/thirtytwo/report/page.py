"""`report.html`: one file that shows a run to a person, offline, on paper or phone, light or dark."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.data.types import ImageSet
from thirtytwo.errors import require
from thirtytwo.evaluation.metrics import confusion_matrix, reliability, wilson
from thirtytwo.io import write_text
from thirtytwo.report.album import Album, make_album
from thirtytwo.report.augmented import Augmented, augmented_rows
from thirtytwo.report.charts import Line, confusion_chart, line_chart, reliability_chart
from thirtytwo.report.confidence import calibration_table, reliability_before, unknown_table
from thirtytwo.report.figures import write_figures
from thirtytwo.report.gallery import worst_mistakes
from thirtytwo.report.label_issues import suspects_of
from thirtytwo.report.members import members_table
from thirtytwo.report.robustness import corruption_table, prediction_sets
from thirtytwo.report.run_record import Facts, duration, gather, interval, percent, quantity, typed_commands
from thirtytwo.rundir import Predictions, RunDir

PAIRS = 12
CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99)

FIGURES: tuple[tuple[str, str, str], ...] = (
    ("accuracy", "Accuracy", "the most probable class is the true one"),
    ("accuracy_tta", "Accuracy, augmented views", "apart from the rest: mirrored and shifted views averaged"),
    ("top5_accuracy", "Top-5 accuracy", "the truth is among the five most probable classes"),
    ("superclass_accuracy", "Superclass accuracy", "the answer lies in the right superclass"),
    (
        "mistake_severity",
        "Mistakes within the superclass",
        "of the mistakes, the part that stays in the right superclass",
    ),
    ("macro_precision", "Macro precision", "mean over classes: of the pictures called so, the part that are"),
    ("macro_recall", "Macro recall", "mean over classes: of the pictures that are so, the part called so"),
    ("macro_f1", "Macro F1", "mean over classes: harmonic mean of the two"),
    ("nll", "Negative log likelihood", "nats; 0 is perfect, lower is better"),
    ("brier", "Brier score", "squared distance from the truth, 0 to 2; lower is better"),
    ("ece", "Expected calibration error", "mean gap between confidence and accuracy; lower is better"),
)
"""Key in metrics.json, name, and what it says in one line."""
PLAIN_NUMBERS = frozenset({"nll", "brier", "ece"})


def write_report(
    run: RunDir,
    pictures: ImageSet | None,
    split: str = "test",
    *,
    val: ImageSet | None = None,
    samples: Augmented | None = None,
) -> Path:
    """Write `report.html` and `figures/` from what the run directory holds; returns the page's path.

    `pictures` are those of `split`, `val` those held out, wanted for suspected labels; `samples` are training pictures
    as augmentation shows them (`thirtytwo.training.samples.draw_samples`). Missing artefacts (an interrupted run, no
    validation, no pictures) are said on the page, not refused.

    Raises:
        RunError: no run there, or a damaged artefact.
    """
    facts = gather(run, split)
    write_figures(facts)
    write_text(run.report, render(facts, pictures, val=val, samples=samples))
    return run.report


def render(
    facts: Facts,
    pictures: ImageSet | None,
    *,
    val: ImageSet | None = None,
    samples: Augmented | None = None,
    passed_on: bool = False,
) -> str:
    """The page's HTML. Every name is escaped by the template, except charts, which escape their own.

    With `passed_on` it goes where the run directory does not, and names no place on this machine.
    """
    jinja2 = require("jinja2", "train")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("thirtytwo", "report/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    context = _context(facts, pictures) | {
        "passed_on": passed_on,
        "command": facts.command_with(facts.run.recipe.name if passed_on else str(facts.run.recipe)),
        "augmented": [] if samples is None else augmented_rows(samples, facts.classes),
        "suspects": suspects_of(facts, {facts.split: pictures} | ({"val": val} if facts.split != "val" else {})),
    }
    return str(environment.get_template("report.html.j2").render(context))


def _context(facts: Facts, pictures: ImageSet | None) -> dict[str, Any]:
    predictions = facts.predictions
    mistakes, problem = worst_mistakes(predictions, pictures) if predictions is not None else ([], "")
    before = reliability_before(facts)
    return {
        "dataset": facts.dataset,
        "recipe_name": facts.recipe.name,
        "split": facts.split,
        "seed": facts.recipe.seed,
        "classes": len(facts.classes),
        "started": _date(facts.environment.get("started")),
        "seconds": _seconds(facts),
        "notices": _notices(facts),
        "headline": _headline(facts),
        "figures": _figure_rows(facts.metrics),
        "curves": _curves(facts.history),
        "smoothing": facts.recipe.train.label_smoothing,
        "taught": facts.recipe.train.distill.run,
        "per_class": _class_rows(facts),
        "superclasses": len(set(facts.superclasses.values())),
        "severity": _severity(facts.metrics),
        "confusion": ""
        if predictions is None
        else confusion_chart(confusion_matrix(predictions), facts.classes, facts.superclasses),
        "group_confusion": "" if predictions is None else _group_confusion(predictions, facts.superclasses),
        "album": None if predictions is None else _album(make_album(predictions, pictures, facts.superclasses)),
        "pairs": _pairs(facts),
        "wrong": None if predictions is None else int((predictions.predicted != predictions.truth).sum()),
        "mistakes": mistakes,
        "mistakes_problem": problem,
        "reliability_before": "" if before is None else reliability_chart(before, "before calibration"),
        "reliability": "" if predictions is None else reliability_chart(reliability(predictions)),
        "calibration": calibration_table(facts),
        "ece": (facts.metrics or {}).get("ece"),
        "coverage": [] if predictions is None else _coverage(predictions),
        "unknown": unknown_table(facts),
        "sets": prediction_sets(facts),
        "corruptions": corruption_table(facts),
        "members": members_table(facts),
        "typed_command": "" if facts.environment.get("members") else "\n".join(typed_commands(facts.run)),
        "choices": facts.environment.get("choices") or [],
        "made_of": _made_of(facts),
        "skipped": facts.data.get("skipped") or [],
        "recipe_text": facts.run.recipe.read_text(encoding="utf-8"),
    }


def _album(album: Album) -> dict[str, Any]:
    """The album as the template wants it; its text is safe inside a script element."""
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
    return found and {"value": percent(found["value"], 1), "interval": interval(found["ci95"], digits=1)}


def _headline(facts: Facts) -> dict[str, Any] | None:
    if facts.metrics is None:
        return None
    metrics, tta = facts.metrics, facts.metrics.get("accuracy_tta")
    touched = int(metrics.get("test_evaluations") or 0)
    return {
        "value": percent(metrics["accuracy"]["value"]),
        "interval": interval(metrics["accuracy"]["ci95"]),
        "n": metrics["n"],
        "wrong": metrics["n"] - round(metrics["accuracy"]["value"] * metrics["n"]),
        "tta": None if tta is None else {"value": percent(tta["value"]), "interval": interval(tta["ci95"])},
        "touched": touched,
        "touched_text": {0: "never", 1: "once", 2: "twice"}.get(touched, f"{touched} times"),
        "validation": next(
            (percent(row["val_accuracy"]) for row in facts.history[::-1] if "val_accuracy" in row), None
        ),
    }


def _notices(facts: Facts) -> list[str]:
    notices = []
    done, planned = len(facts.history), facts.recipe.schedule.epochs
    if facts.interrupted:
        ended = f"This run stopped after {done} of {planned} epochs." if done < planned else "This run did not finish."
        resume = f"thirtytwo train {facts.data.get('spec') or 'DATA'} --run {facts.run.path} --resume"
        notices.append(f"{ended} Continue it with: {resume}")
    if facts.metrics is not None and facts.split != "test":
        notices.append(f"These are figures on {facts.split}, which served for choices. They are not a test result.")
    if facts.metrics is not None and facts.split == "test" and int(facts.metrics.get("test_evaluations") or 0) > 1:
        notices.append(
            f"Test was scored {facts.metrics['test_evaluations']} times. Anything chosen after the first look "
            "can flatter these figures."
        )
    if facts.splits.get("train_on") == "all":
        notices.append(
            "Trained on all of train, validation rows included: validation figures of this run measure memory. "
            "Temperature and threshold come from a twin run that held validation out."
        )
    return notices


def _figure_rows(metrics: Mapping[str, Any] | None) -> list[dict[str, str]]:
    if metrics is None:
        return []
    rows = []
    for key, name, meaning in FIGURES:
        figure = metrics.get(key)
        if figure is None:
            continue
        share = key not in PLAIN_NUMBERS
        value = percent(figure["value"]) if share else f"{figure['value']:.4f}"
        ends = interval(figure["ci95"], as_percent=share, digits=None if share else 4)
        rows.append({"name": name, "value": value, "interval": ends, "meaning": meaning})
    return rows


def _curves(history: Sequence[Mapping[str, float]]) -> list[str]:
    def points(column: str) -> list[tuple[float, float]]:
        return [(row.get("epoch", number), row[column]) for number, row in enumerate(history, 1) if column in row]

    charts = [
        line_chart(
            title,
            [Line("training", "train", points(f"train_{what}")), Line("validation", "val", points(f"val_{what}"))],
            as_percent=what == "accuracy",
        )
        for what, title in (("accuracy", "Accuracy"), ("loss", "Loss"))
    ]
    charts.append(line_chart("Learning rate", [Line("", "train", points("lr"))]))
    return [chart for chart in charts if chart]


def _class_rows(facts: Facts) -> list[dict[str, Any]]:
    """Per class, weakest F1 first; recall carries its interval, which few pictures make wide."""
    if facts.metrics is None:
        return []
    rows = []
    for row in facts.metrics["per_class"]:
        support, recall = row["support"], row["recall"]
        ends = wilson(round((recall or 0.0) * support), support) if support else None
        rows.append(
            {
                **row,
                "index": facts.classes.index(row["class"]),
                "superclass": facts.superclasses.get(row["class"], ""),
                "recall_interval": interval(list(ends), digits=0) if ends else "",
            }
        )
    return sorted(rows, key=lambda row: (row["f1"] is None, row["f1"] or 0.0))


def _pairs(facts: Facts) -> list[dict[str, Any]]:
    if facts.metrics is None:
        return []
    support = {row["class"]: row["support"] for row in facts.metrics["per_class"]}
    pairs = facts.metrics["confusions"][:PAIRS]
    most = max((pair["count"] for pair in pairs), default=1)
    return [
        {
            **pair,
            "cell": f"{facts.classes.index(pair['true'])},{facts.classes.index(pair['predicted'])}",
            "share": percent(pair["count"] / max(1, support[pair["true"]]), 1),
            "bar": pair["count"] / most,
        }
        for pair in pairs
    ]


def _coverage(predictions: Predictions) -> list[dict[str, str]]:
    """If only answers at least this confident count: how many are left, and how many of those are right."""
    right = predictions.predicted == predictions.truth
    rows = []
    for least in CONFIDENCES:
        kept = predictions.confidence >= least
        count = int(kept.sum())
        ends = wilson(int(right[kept].sum()), count) if count else None
        rows.append(
            {
                "least": f"{100 * least:.0f}%",
                "kept": percent(count / len(right), 1),
                "right": percent(float(right[kept].mean()), 2) if count else "–",
                "interval": interval(list(ends)) if ends else "",
            }
        )
    return rows


def _made_of(facts: Facts) -> list[tuple[str, str]]:
    """What the run was made with, as (what, value); what is not recorded is left out."""
    environment, data, splits = facts.environment, facts.data, facts.splits
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
        ("Data", data.get("spec") or facts.dataset),
        ("Pictures", ", ".join(counts)),
        ("Fingerprint", data.get("fingerprint")),
        (
            "Validation",
            _validation_text(splits),
        ),
        ("Network", facts.recipe.model.name),
        *facts.origins,
        ("Parameters", quantity(parameters) if parameters else None),
        ("Work for one picture", f"{quantity(flops)} floating-point operations" if flops else None),
        ("Training took", duration(seconds["train"]) if seconds.get("train") is not None else None),
        ("Everything took", duration(seconds["total"]) if seconds.get("total") is not None else None),
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
        return "none held out: a record run on all of train, its choices made before by a twin run"
    if not count:
        return "none held out"
    if splits.get("val_rows"):
        return f"{count:,} rows held out of train by seed {splits.get('seed')}, listed in split.json"
    return f"{count:,} rows, the data's own split"


def _seconds(facts: Facts) -> str | None:
    seconds = (facts.environment.get("seconds") or {}).get("train")
    return None if seconds is None else duration(seconds)


def _date(started: object) -> str | None:
    """An ISO time as a day; anything else as it is."""
    if not started:
        return None
    try:
        moment = datetime.datetime.fromisoformat(str(started))
    except ValueError:
        return str(started)
    return f"{moment.day} {moment:%B %Y}"
