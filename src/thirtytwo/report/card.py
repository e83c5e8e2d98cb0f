"""`README.md` of a run: a model card with the front matter that model hubs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thirtytwo.errors import require
from thirtytwo.io import write_text
from thirtytwo.report.confidence import calibration_table, unknown_table
from thirtytwo.report.label_issues import suspects_of
from thirtytwo.report.members import members_table
from thirtytwo.report.page import FIGURES, PLAIN_NUMBERS
from thirtytwo.report.robustness import corruption_table, prediction_sets
from thirtytwo.report.run_record import Facts, duration, gather, interval, percent, quantity
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_markdown

HUB_NAMES = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
HUB_METRICS: tuple[tuple[str, str, str], ...] = (
    ("accuracy", "accuracy", "Accuracy, one view"),
    ("accuracy_tta", "accuracy", "Accuracy with test-time augmentation"),
    ("top5_accuracy", "accuracy", "Top-5 accuracy"),
    ("macro_precision", "precision", "Macro precision"),
    ("macro_recall", "recall", "Macro recall"),
    ("macro_f1", "f1", "Macro F1"),
    ("nll", "nll", "Negative log likelihood"),
    ("brier", "brier_score", "Brier score"),
    ("ece", "expected_calibration_error", "Expected calibration error"),
)
"""Key in metrics.json, the hub's metric type, and the name shown."""


def write_card(run: RunDir) -> Path:
    """Write the model card from what the run directory holds; returns its path.

    Raises:
        RunError: no run there, or a damaged artefact.
    """
    write_text(run.card, card(gather(run)))
    return run.card


def card(facts: Facts) -> str:
    """The card's text: front matter, then what the model is for, what it reached, how it was made, where it ends."""
    yaml = require("yaml", "train")
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        f"---\n{front}---",
        f"# {as_markdown(facts.dataset)}, {as_markdown(facts.recipe.name)}",
        _summary(facts),
        _use(facts),
        _figures(facts),
        _members(facts),
        _calibration(facts),
        _unknown(facts),
        _sets(facts),
        _corruptions(facts),
        _labels(facts),
        _training(facts),
        _limits(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(facts: Facts) -> dict[str, Any]:
    """What the hub indexes: library, task, data sets, metrics, and results with values."""
    hub_name = _hub_name(facts)
    front: dict[str, Any] = {
        "library_name": "thirtytwo",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "thirtytwo"],
    }
    if hub_name:
        front["datasets"] = [hub_name]
    results = [
        {"type": kind, "name": name, "value": round(facts.metrics[key]["value"], 6)}
        for key, kind, name in HUB_METRICS
        if facts.metrics is not None and facts.metrics.get(key) is not None
    ]
    if results:
        front["metrics"] = list(dict.fromkeys(result["type"] for result in results))
        front["model-index"] = [
            {
                "name": f"{facts.dataset}-{facts.recipe.name}",
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification"},
                        "dataset": {"name": facts.dataset, "type": hub_name or "imagefolder", "split": facts.split},
                        "metrics": results,
                    }
                ],
            }
        ]
    return front


def _summary(facts: Facts) -> str:
    classes = len(facts.classes)
    sentences = [
        f"An image classifier for {classes} classes" if classes else "An image classifier",
        f", trained on {as_markdown(facts.dataset)} with the recipe {_code(facts.recipe.name)}.",
    ]
    if facts.metrics is not None:
        accuracy = facts.metrics["accuracy"]
        sentences.append(
            f" It calls **{percent(accuracy['value'])}** of {facts.metrics['n']:,} {facts.split} pictures right "
            f"(95% interval {interval(accuracy['ci95'])}), one view each."
        )
    if facts.interrupted:
        done = len(facts.history)
        sentences.append(f" **The run stopped after {done} of {facts.recipe.schedule.epochs} epochs.**")
    return "".join(sentences)


def _use(facts: Facts) -> str:
    named = ", ".join(as_markdown(name) for name in facts.classes)
    listing = f"\n\n<details><summary>Classes</summary>\n\n{named}\n\n</details>" if named else ""
    return (
        "## Use\n\n"
        "`model.onnx` is the whole model: raw pixels in, calibrated probabilities out. PyTorch is not needed.\n\n"
        "```sh\npip install thirtytwo\nthirtytwo predict photo.jpg --model model.onnx\n```\n\n"
        "Intended for pictures like those it was trained on, one of the classes each. "
        "An answer marked as not known is best treated as no answer." + listing
    )


def _figures(facts: Facts) -> str:
    if facts.metrics is None:
        return "## Figures\n\nNone: this run was not scored."
    metrics = facts.metrics
    rows = [(name, metrics[key], key not in PLAIN_NUMBERS) for key, name, _ in FIGURES if metrics.get(key)]
    lines = [
        f"| {name} | {percent(figure['value']) if share else format(figure['value'], '.4f')} | "
        f"{interval(figure['ci95'], as_percent=share, digits=2 if share else 4)} |"
        for name, figure, share in rows
    ]
    touched = int(metrics.get("test_evaluations") or 0)
    times = {0: "not at all", 1: "once", 2: "twice"}.get(touched, f"{touched} times")
    weakest = sorted((row for row in metrics["per_class"] if row["f1"] is not None), key=lambda row: row["f1"])[:3]
    weak = ", ".join(f"{as_markdown(row['class'])} ({percent(row['f1'], 1)})" for row in weakest)
    return (
        f"## Figures\n\nOn {facts.split}, n = {metrics['n']:,}. Test was scored {times}.\n\n"
        "| figure | value | 95% interval |\n| --- | ---: | ---: |\n" + "\n".join(lines) + "\n\n"
        "Accuracy is of one view a picture; augmented views are a figure of their own. "
        "Intervals are Wilson’s for proportions and the bootstrap over pictures for the rest; "
        "they do not cover how much another seed would change.\n\n"
        f"Weakest classes by F1: {weak}. "
        "`report.html` shows every class, the confusions and the pictures behind them."
    )


def _members(facts: Facts) -> str:
    table = members_table(facts)
    if table is None:
        return ""
    count, cost = len(table["rows"]), "It costs what one of them costs" if table["soup"] else "It costs what all cost"
    told = f"The mean weights of {table['kept']} of {count} runs." if table["soup"] else f"The mean of {count} runs."
    rows = [
        f"| {as_markdown(row['run'])} {row['left_out'] and '(left out) '}| {as_markdown(row['made'])} | "
        f"{row['accuracy']} | {row['parameters']} | {row['flops']} | {row['seconds']} |"
        for row in (*table["rows"], table["together"])
    ]
    return (
        f"## Members\n\n{told} {cost}.\n\n"
        "| run | made by | accuracy | parameters | FLOPs a picture | trained in |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n" + "\n".join(rows)
    )


def _calibration(facts: Facts) -> str:
    table = calibration_table(facts)
    if table is None:
        return ""
    lines = [
        f"| {row['stage']} | {row['ece']} | {row['ece_interval']} | {row['nll']} | {row['nll_interval']} |"
        for row in table["rows"]
    ]
    bent = f" and curvature {table['curvature']}" if table["curvature"] else ""
    fitted = f", fitted on {table['fitted_on']:,} validation pictures" if table["fitted_on"] else ""
    note = f" {as_markdown(table['note'])}." if table["note"] else ""
    return (
        f"## Calibration\n\nProbabilities are calibrated by temperature {table['temperature']}{bent}{fitted}.{note} "
        f"Measured on {facts.split}:\n\n"
        "| probabilities | ECE | 95% interval | NLL | 95% interval |\n| --- | ---: | ---: | ---: | ---: |\n"
        + "\n".join(lines)
    )


def _unknown(facts: Facts) -> str:
    table = unknown_table(facts)
    if table is None:
        return ""
    called = ""
    if table["test"]:
        called = (
            f" Of {table['test']['n']:,} {facts.split} pictures it calls {table['test']['called']} unknown by mistake "
            f"(95% interval {table['test']['interval']})."
        )
    text = (
        f"## Unknown pictures\n\nA picture is called unknown where its score lies below {table['threshold']}, "
        f"set so that {table['share']} of validation pictures do. "
        f"The score ({as_markdown(table['score'])}): {as_markdown(table['what'])}"
        + (f", {as_markdown(table['source'])}" if table["source"] else "")
        + f".{called}"
    )
    if table["skipped"]:
        text += f" Not measured: {as_markdown('; '.join(table['skipped']))}."
    if not table["rows"]:
        return text
    lines = [
        f"| {as_markdown(row['what'])} | {row['n']:,} | {row['auroc']} | {row['fpr95']} | {row['called']} |"
        for row in table["rows"]
    ]
    return (
        f"{text}\n\n| pictures it was never trained for | n | AUROC | false positives at 95% | called unknown |\n"
        "| --- | ---: | ---: | ---: | ---: |\n" + "\n".join(lines)
    )


def _labels(facts: Facts) -> str:
    found = suspects_of(facts, {})
    if found is None or not found["total"]:
        return ""
    counts = " and ".join(f"{part['count']:,} of {part['n']:,} {part['split']} labels" for part in found["counts"])
    return (
        f"## Suspected wrong labels\n\n{counts}, by confident learning: suspects, not proven, and many of them are "
        "wrong answers rather than wrong labels. `report.html` shows them."
    )


def _sets(facts: Facts) -> str:
    sets = prediction_sets(facts)
    if sets is None:
        return ""
    return (
        f"## Prediction sets\n\nThe classes with a probability of at least {sets['least']}, set on "
        f"{sets['calibrated_on']:,} validation pictures for a coverage of {sets['asked']}, hold the truth of "
        f"{sets['measured']} of {sets['n']:,} {facts.split} pictures (95% interval {sets['interval']}), "
        f"{sets['size']} classes on average. Coverage holds over all classes together; "
        f"the least covered is {as_markdown(sets['weakest'])} ({sets['weakest_coverage']}). "
        f"{as_markdown(sets['note'])}."
    )


def _corruptions(facts: Facts) -> str:
    table = corruption_table(facts)
    if table is None:
        return ""
    heads = " | ".join(str(strength) for strength in table["strengths"])
    lines = [
        f"| {as_markdown(row['kind'])} | " + " | ".join(cell["text"] for cell in row["cells"]) + f" | {row['mean']} |"
        for row in table["rows"]
    ]
    return (
        f"## Corrupted pictures\n\nMean accuracy {table['mean']} (95% interval {table['interval']}) over common "
        f"corruptions at five strengths, {table['clean']} without, n = {table['n']:,} each. Kinds after Hendrycks and "
        f"Dietterich 2019, made anew.\n\n| kind | {heads} | mean |\n"
        f"| --- |{' ---: |' * (len(table['strengths']) + 1)}\n" + "\n".join(lines)
    )


def _training(facts: Facts) -> str:
    data, environment, splits = facts.data, facts.environment, facts.splits
    hardware, versions = environment.get("hardware") or {}, environment.get("versions") or {}
    seconds = (environment.get("seconds") or {}).get("train")
    parameters = environment.get("parameters")
    spec = data.get("spec") or facts.dataset
    lines = [
        f"- Data: {as_markdown(spec)}"
        + (f", fingerprint {_code(data['fingerprint'])}" if data.get("fingerprint") else "")
    ]
    if splits:
        held = splits.get("n_val") or 0
        validation = f"{held:,} rows held out for choices" if held else "none held out for choices"
        lines.append(f"- Rows: {splits.get('n_train') or 0:,} trained on, {validation} (seed {splits.get('seed')})")
    network = facts.recipe.model.name + (f", {quantity(parameters)} parameters" if parameters else "")
    lines.append(f"- Network: {as_markdown(network)}")
    lines += [f"- {relation}: {_code(named)}" for relation, named in facts.origins]
    made_of_runs = bool(facts.environment.get("members"))
    if not made_of_runs:
        lines.append(f"- Epochs: {len(facts.history) or facts.recipe.schedule.epochs}, seed {facts.recipe.seed}")
    if seconds is not None:
        machine = [
            hardware.get("gpu") or hardware.get("cpu"),
            f"{hardware['cores']} cores" if hardware.get("cores") else None,
        ]
        on = ", ".join(str(part) for part in machine if part)
        lines.append(f"- Time: {duration(seconds)}" + (f" on {as_markdown(on)}" if on else ""))
    if versions:
        lines.append(
            "- Software: "
            + ", ".join(f"{as_markdown(name)} {as_markdown(version)}" for name, version in versions.items())
        )
    source = "from the same runs" if made_of_runs else "with the recipe of this directory"
    return (
        "## Training\n\n" + "\n".join(lines) + f"\n\nReproduce it {source}:\n\n"
        f"```sh\n{facts.command_with('recipe.toml')}\n```"
    )


def _limits(facts: Facts) -> str:
    lines = [
        "- Figures hold for pictures drawn like the test split; other cameras, crops and sizes were not measured.",
        "- It always answers with one of its classes. A picture of something else may be called unknown, and may not.",
        "- It repeats the mistakes and the imbalance of its training labels.",
    ]
    if facts.splits.get("train_on") == "all":
        lines.append("- Temperature and threshold come from a twin run, since this one held no validation out.")
    lines.append("- No licence is set here: add one, and mind the licence of the data, before publishing.")
    return "## Limits\n\n" + "\n".join(lines)


def _hub_name(facts: Facts) -> str | None:
    spec = str(facts.data.get("spec") or facts.dataset)
    if spec.startswith("hf:"):
        return spec.removeprefix("hf:").partition("?")[0]
    return HUB_NAMES.get(spec)


def _code(text: object) -> str:
    """Any text as a code span."""
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"
