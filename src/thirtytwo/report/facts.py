"""What the report says of a run, as text and rows: for the page and for the PDF."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from thirtytwo.evaluation.calibration import LEAST_IMAGES, uncalibrated, was_not_calibrated
from thirtytwo.evaluation.metrics import measured, wilson
from thirtytwo.report.run_record import RunRecord
from thirtytwo.text import capitalized, counted, duration, interval, percent, quantity

_NOT_CALIBRATED = "The probabilities are not calibrated and no image is marked unknown:"
MAX_PAIRS = 12
"""Maximum number of confused pairs that are listed."""


def metric_rows(metrics: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Every measured metric with its value, interval and meaning."""
    if metrics is None:
        return []
    return [
        {"name": metric.name, "value": value, "interval": ends, "meaning": metric.meaning}
        for metric, value, ends in measured(metrics)
    ]


def notices(record: RunRecord) -> list[str]:
    """What a reader has to know before the metrics, as sentences; usually nothing."""
    found = []
    done, planned = len(record.history), record.recipe.schedule.epochs
    if record.interrupted:
        ended = (
            f"This run was interrupted after {done} of {planned} epochs."
            if done < planned
            else "This run did not finish."
        )
        how = "" if record.passed_on else f" Resume it with: {record.run.resume_command(record.data.get('spec'))}"
        found.append(f"{ended}{how}")
    if record.metrics is not None and record.split != "test":
        found.append(
            f"These metrics are on {record.split}, which was used for model selection. They are not test results."
        )
    if record.metrics is not None and record.split == "test" and int(record.metrics.get("test_evaluations") or 0) > 1:
        found.append(
            f"There were {record.metrics['test_evaluations']} test evaluations. If anything was chosen after the first "
            "one, these metrics are optimistic."
        )
    if record.splits.get("train_on") == "all":
        found.append(
            "This run trained on all of train, including validation: its validation metrics are optimistic. "
            "Temperature and threshold come from a calibration run that held validation out."
        )
    if missing := missing_calibration(record):
        found.append(missing)
    return found


def missing_calibration(record: RunRecord) -> str:
    """A sentence on a model that was not calibrated, since it had too few validation images; else empty."""
    if not was_not_calibrated((record.metrics or {}).get("calibration") or {}):
        return ""
    if record.splits.get("train_on") == "all":
        return f"{_NOT_CALIBRATED} the calibration run had fewer than {LEAST_IMAGES} validation images."
    return f"{capitalized(uncalibrated(int(record.splits.get('n_val') or 0)))}."


def calibration_advice(record: RunRecord) -> tuple[str, ...]:
    """What to do about a model that was not calibrated; nothing for others."""
    if not missing_calibration(record):
        return ()
    todo = f"Hold out at least {LEAST_IMAGES} validation images: add images, or raise data.val_fraction."
    return (f"{todo} The probabilities are then calibrated, and images of something else can be marked unknown.",)


def class_rows(record: RunRecord) -> list[dict[str, Any]]:
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
                "index": record.classes.index(row["class"]),
                "superclass": record.superclasses.get(row["class"], ""),
                "recall_interval": interval(list(ends)) if ends else "",
            }
        )
    return sorted(rows, key=lambda row: (row["f1"] is None, row["f1"] or 0.0))


def details(record: RunRecord) -> list[tuple[str, str]]:
    """Data, network and machine of the run as (name, value); what is not recorded is left out."""
    return [*data_facts(record), *network_facts(record), *machine_facts(record)]


def data_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Data of the run, as in `details`."""
    data = record.data
    counts = [f"{part} {data[part]:,}" for part in ("train", "val", "test") if isinstance(data.get(part), int)]
    rows = [
        ("Data", record.source),
        ("Images", ", ".join(counts)),
        ("Fingerprint", data.get("fingerprint")),
        ("Validation", _validation_text(record.splits)),
    ]
    return _recorded(rows)


def network_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Network of the run and its size, as in `details`."""
    parameters, flops = (record.environment.get(key) for key in ("parameters", "flops"))
    rows = [
        ("Network", record.recipe.model.architecture),
        *record.origins,
        ("Parameters", quantity(parameters) if parameters else None),
        ("FLOPs per image", quantity(flops) if flops else None),
    ]
    return _recorded(rows)


def machine_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Times, machine and software of the run, as in `details`."""
    environment = record.environment
    hardware: Mapping[str, Any] = environment.get("hardware") or {}
    versions: Mapping[str, Any] = environment.get("versions") or {}
    seconds: Mapping[str, Any] = environment.get("seconds") or {}
    peak = environment.get("peak_memory_mb")
    machine = [
        hardware.get("cpu"),
        f"{hardware['cores']} cores" if hardware.get("cores") else None,
        f"{hardware['memory_gb']:g} GB memory" if hardware.get("memory_gb") else None,
        hardware.get("gpu"),
    ]
    rows = [
        ("Training time", duration(seconds["train"]) if seconds.get("train") is not None else None),
        ("Total time", duration(seconds["total"]) if seconds.get("total") is not None else None),
        ("Peak memory", f"{peak:,.0f} MB" if peak else None),
        ("Device", environment.get("device")),
        ("Machine", ", ".join(str(part) for part in machine if part)),
        ("Software", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return _recorded(rows)


def _recorded(rows: Iterable[tuple[str, object]]) -> list[tuple[str, str]]:
    return [(what, str(value)) for what, value in rows if value]


def confused_pairs(record: RunRecord) -> list[dict[str, Any]]:
    """The most frequent confusions, with their share of the true class."""
    if record.metrics is None:
        return []
    support = {row["class"]: row["support"] for row in record.metrics["per_class"]}
    pairs = record.metrics["confusions"][:MAX_PAIRS]
    most = max((pair["count"] for pair in pairs), default=1)
    return [
        {
            **pair,
            "cell": f"{record.classes.index(pair['true'])},{record.classes.index(pair['predicted'])}",
            "share": percent(pair["count"] / max(1, support[pair["true"]])),
            "bar": pair["count"] / most,
        }
        for pair in pairs
    ]


def _validation_text(splits: Mapping[str, Any]) -> str | None:
    if not splits:
        return None
    count = splits.get("n_val") or 0
    if splits.get("train_on") == "all":
        return "none: trained on all of train, calibrated by another run"
    if not count:
        return "none"
    if splits.get("own_val"):
        return f"{counted(count, 'image')}, the data's own split"
    return f"{counted(count, 'image')} held out of train with seed {splits.get('seed')}, listed in split.json"


def date_text(started: object) -> str | None:
    """An ISO time as a date; other text unchanged."""
    if not started:
        return None
    try:
        moment = datetime.datetime.fromisoformat(str(started))
    except ValueError:
        return str(started)
    return f"{moment.day} {moment:%B %Y}"
