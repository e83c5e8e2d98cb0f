"""`README.md` of a run: a model card with front matter for model hubs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thirtytwo.errors import require
from thirtytwo.evaluation.metrics import METRICS, measured
from thirtytwo.evaluation.sections import Cell, Table, table_of
from thirtytwo.io import write_text
from thirtytwo.report.facts import missing_calibration
from thirtytwo.report.run_record import RunRecord, read_run_record
from thirtytwo.report.sections import members_table, section_markdown, table_markdown
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_markdown, duration, interval, percent, quantity, readable

LICENSE = ("license", "license_name", "license_link")
"""Entries of the front matter that only the owner of a run can know, and adds to its card."""
HUB_NAMES = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}


def write_card(run: RunDir, record: RunRecord | None = None) -> Path:
    """Write the model card from the files of a run directory, or from `record` of them; returns its path.

    The license that was added to an earlier card of the run is kept.

    Raises:
        RunError: there is no run, or one of its files is damaged.
    """
    write_text(run.card, card(record or read_run_record(run)))
    return run.card


def card(record: RunRecord) -> str:
    """The text of the card: front matter, intended use, metrics, training and limitations."""
    yaml = require("yaml", "train")
    front = yaml.safe_dump(front_matter(record), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        f"---\n{front}---",
        f"# {as_markdown(record.dataset)}, {as_markdown(record.recipe.name)}",
        _summary(record),
        _use(record),
        _metrics(record),
        _members(record),
        *(section_markdown(evaluator.title, section) for evaluator, section in record.sections),
        _training(record),
        _limitations(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(record: RunRecord) -> dict[str, Any]:
    """The front matter: library, task, data sets, metrics, and results."""
    hub_name = _hub_name(record)
    front: dict[str, Any] = {
        "library_name": "thirtytwo",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "thirtytwo"],
        **_license(record),
    }
    if hub_name:
        front["datasets"] = [hub_name]
    results = [
        {"type": metric.hub_type, "name": metric.name, "value": round(record.metrics[metric.key]["value"], 6)}
        for metric in METRICS
        if metric.hub_type and record.metrics is not None and record.metrics.get(metric.key) is not None
    ]
    if results:
        front["metrics"] = list(dict.fromkeys(result["type"] for result in results))
        front["model-index"] = [
            {
                "name": f"{record.dataset}-{record.recipe.name}",
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification"},
                        "dataset": {"name": record.dataset, "type": hub_name or "imagefolder", "split": record.split},
                        "metrics": results,
                    }
                ],
            }
        ]
    return front


def _license(record: RunRecord) -> dict[str, str]:
    """The license in the front matter of the run's present card; empty where there is none."""
    try:
        text = record.run.card.read_text(encoding="utf-8")
        front = require("yaml", "train").safe_load(text.split("---\n", 2)[1]) if text.startswith("---\n") else None
    except (OSError, ValueError, IndexError, require("yaml", "train").YAMLError):
        return {}
    if not isinstance(front, dict):
        return {}
    return {key: front[key] for key in LICENSE if isinstance(front.get(key), str)}


def _summary(record: RunRecord) -> str:
    classes = len(record.classes)
    sentences = [
        f"An image classifier for {classes} classes" if classes else "An image classifier",
        f", trained on {as_markdown(record.dataset)} with the recipe {_code(record.recipe.name)}.",
    ]
    if record.metrics is not None:
        accuracy = record.metrics["accuracy"]
        sentences.append(
            f" Accuracy on {record.metrics['n']:,} {record.split} images: **{percent(accuracy['value'])}** "
            f"(95\u00a0% interval {interval(accuracy['ci95'])}, one view per image)."
        )
    if record.interrupted:
        done = len(record.history)
        sentences.append(f" **The run was interrupted after {done} of {record.recipe.schedule.epochs} epochs.**")
    return "".join(sentences)


def _use(record: RunRecord) -> str:
    named = ", ".join(as_markdown(readable(name)) for name in record.classes)
    listing = f"\n\n<details><summary>Classes</summary>\n\n{named}\n\n</details>" if named else ""
    calibrated = not missing_calibration(record)
    unknown = "Do not use a prediction that is marked as unknown." if calibrated else ""
    return (
        "## Use\n\n"
        f"`model.onnx` is the complete model, from raw pixels to {'calibrated ' if calibrated else ''}probabilities. "
        "It needs no PyTorch.\n\n"
        "```sh\npip install .  # in a clone of the repository of thirtytwo\n"
        "thirtytwo predict photo.jpg --model model.onnx\n```\n\n"
        f"Intended for images like the training images, each of one of the classes. {unknown}".rstrip()
        + listing
    )


def _metrics(record: RunRecord) -> str:
    if record.metrics is None:
        return "## Metrics\n\nNone: this run was not evaluated."
    metrics = record.metrics
    rows = [(metric.name, value, ends) for metric, value, ends in measured(metrics)]
    evaluations = int(metrics.get("test_evaluations") or 0)
    weakest = sorted((row for row in metrics["per_class"] if row["f1"] is not None), key=lambda row: row["f1"])[:3]
    weak = ", ".join(f"{as_markdown(readable(row['class']))} ({percent(row['f1'])})" for row in weakest)
    table = table_markdown(table_of(("metric", "value", "95\u00a0% interval"), rows))
    return (
        f"## Metrics\n\nOn {record.split}, n = {metrics['n']:,}. Test evaluations: {evaluations}.\n\n"
        f"{table}\n\n"
        "Accuracy is of one view per image; test-time augmentation is a separate metric. "
        "Intervals are Wilson for proportions and bootstrap over images for the rest; "
        "they do not include seed variance.\n\n"
        f"Classes with the lowest F1: {weak}. "
        "`report.html` shows every class, the confusion matrix and misclassified images."
    )


def _members(record: RunRecord) -> str:
    table = members_table(record)
    if table is None:
        return ""
    count = len(table["rows"])
    averaged = f"weights of {table['kept']} of {count}" if table["soup"] else f"probabilities of {count}"
    cost = "one run" if table["soup"] else "all runs together"
    columns = ("run", "recipe and network", "accuracy", "parameters", "FLOPs per image", "training time")
    keys = ("made_by", "accuracy", "parameters", "flops", "seconds")
    rows = tuple(
        (Cell(row["run"], row["left_out"]), *(Cell(row[key]) for key in keys))
        for row in (*table["rows"], table["together"])
    )
    return (
        f"## Members\n\nAveraged {averaged} runs. Prediction costs as much as {cost}.\n\n"
        f"{table_markdown(Table(columns, rows), names=2)}"
    )


def _training(record: RunRecord) -> str:
    data, environment, splits = record.data, record.environment, record.splits
    hardware, versions = environment.get("hardware") or {}, environment.get("versions") or {}
    seconds = (environment.get("seconds") or {}).get("train")
    parameters = environment.get("parameters")
    lines = [
        f"- Data: {as_markdown(record.source)}"
        + (f", fingerprint {_code(data['fingerprint'])}" if data.get("fingerprint") else "")
    ]
    if splits:
        held = splits.get("n_val") or 0
        validation = f"{held:,} for validation" if held else "none for validation"
        seed = f" (seed {splits.get('seed')})" if held and not splits.get("own_val") else ""
        lines.append(f"- Images: {splits.get('n_train') or 0:,} for training, {validation}{seed}")
    network = record.recipe.model.architecture + (f", {quantity(parameters)} parameters" if parameters else "")
    lines.append(f"- Network: {as_markdown(network)}")
    lines += [f"- {relation}: {_code(named)}" for relation, named in record.origins]
    made_of_runs = bool(record.environment.get("members"))
    if not made_of_runs:
        lines.append(f"- Epochs: {len(record.history) or record.recipe.schedule.epochs}, seed {record.recipe.seed}")
    if seconds is not None:
        machine = [
            hardware.get("gpu") or hardware.get("cpu"),
            f"{hardware['cores']} cores" if hardware.get("cores") else None,
        ]
        on = ", ".join(str(part) for part in machine if part)
        lines.append(f"- Training time: {duration(seconds)}" + (f" on {as_markdown(on)}" if on else ""))
    if versions:
        lines.append(
            "- Software: "
            + ", ".join(f"{as_markdown(name)} {as_markdown(version)}" for name, version in versions.items())
        )
    source = "from the same runs" if made_of_runs else "with the recipe of this directory"
    remarks = "".join(f"\n\n{as_markdown(remark)}" for remark in record.remarks)
    return (
        "## Training\n\n" + "\n".join(lines) + f"\n\nReproduce it {source}:\n\n"
        f"```sh\n{record.command_with('recipe.toml')}\n```{remarks}"
    )


def _limitations(record: RunRecord) -> str:
    lines = [
        "- Metrics apply to images like those of the test split; other cameras, crops and sizes were not evaluated.",
        "- The model always predicts one of its classes. Not every image of something else is recognized as unknown.",
        "- The model reproduces errors and imbalance of its training labels.",
    ]
    if missing := missing_calibration(record):
        lines[1] = f"- The model always predicts one of its classes. {missing}"
    elif record.splits.get("train_on") == "all":
        lines.append("- Temperature and threshold come from a calibration run, since this run has no validation.")
    if not _license(record):
        lines.append("- No licence is set: add one before publishing, and check the licence of the data.")
    return "## Limitations\n\n" + "\n".join(lines)


def _hub_name(record: RunRecord) -> str | None:
    spec = str(record.data.get("spec") or record.dataset)
    if spec.startswith("hf:"):
        return spec.removeprefix("hf:").partition("?")[0]
    return HUB_NAMES.get(spec)


def _code(text: object) -> str:
    """Any text as a code span."""
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"
