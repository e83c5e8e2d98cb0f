"""Label errors: average precision of T501's ranking on CIFAR-10 training labels of which 5 % were flipped at random.

    python benchmarks/label_errors.py [--images 50000] [--train] [--plans FOLDER] [--seeds 3] [--sheet FILE DATA]

The method was chosen on seed 1, and seed 0 is the metric. `--images` takes the first training images only. CIFAR-10's
own labels have errors too, which count as false positives. `--sheet` draws the first 50 suspects of DATA to look at.
`--train` instead trains the recipe `fast` on the given labels, on the flipped ones, and on these with the fixes that
`data doctor --thorough --fix-plan` suggests for T501, and measures how much of the lost test accuracy they recover.
`--plans` without `--train` only writes the plans of fixes, to train with them on another machine.
Writes `benchmarks/results/label_errors.json`, or `label_plans.json` (what the plan names) and `label_repair.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from sklearn.metrics import average_precision_score

from thirtytwo.data.fixes import Fix, FixPlan, write_fix_plan
from thirtytwo.data.load import load_dataset
from thirtytwo.doctor import CHECKS, Diagnosis, Subject, diagnose
from thirtytwo.doctor.features import choose_larger_model, choose_model, compute_features, larger_features
from thirtytwo.doctor.fix_plan import suggest_fixes
from thirtytwo.doctor.label_probe import predict_held_out
from thirtytwo.doctor.page import preview
from thirtytwo.doctor.second_probe import predict_doubted
from thirtytwo.evaluation.label_issues import find_label_issues
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name

RESULTS = Path(__file__).parent / "results" / "label_errors.json"
SHARE, SEED, OTHERS = 0.05, 0, (1, 2, 3)
SHOWN = 50
ARMS = ("clean", "flipped", "repaired")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--sheet", nargs=2, metavar=("FILE", "DATA"), help="draw the first suspects of DATA, and end")
    parser.add_argument("--train", action="store_true", help="measure what training with the plan of fixes recovers")
    parser.add_argument("--plans", type=Path, metavar="FOLDER", help="write the plans of fixes here, or read them")
    parser.add_argument("--epochs", type=int, help="passes over the training images with --train; the recipe's")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds with --train")
    parser.add_argument("--arms", default=",".join(ARMS), help="of --train, separated by commas; others are kept")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    root = os.environ.get("THIRTYTWO_DATA")
    if root is None:
        print("skipped: set THIRTYTWO_DATA to a folder with the data sets")
        return 0
    if options.sheet:
        draw(Path(options.sheet[0]), options.sheet[1], Path(root))
        return 0
    if options.train or options.plans:
        repair(options, Path(root))
        return 0
    data = load_dataset("cifar10", data_root=Path(root))
    path = choose_model(data)
    larger = choose_larger_model(data)
    labels, images = data.train.labels[: options.images], np.asarray(data.train.images[: options.images])
    features = compute_features(path, images)
    found = {seed: measure(features, images, labels, data.classes, seed, larger) for seed in (SEED, *OTHERS)}
    for seed, record in found.items():
        print(seed, record, flush=True)
    content: dict[str, Any] = {"what": __doc__.splitlines()[0], "n": len(labels), "share": SHARE, "model": path.stem}
    content |= {"second_model": larger and larger.stem}
    content |= {"seed": SEED} | found[SEED] | {"other_seeds": {str(seed): found[seed] for seed in OTHERS}}
    write_json(options.out or RESULTS, content | machine())
    return 0


def repair(options: argparse.Namespace, root: Path) -> None:
    """Write the plans of fixes where there are none, and train with each of them if asked to."""
    with TemporaryDirectory() as temporary:
        folder = options.plans or Path(temporary)
        folder.mkdir(exist_ok=True)
        if not (folder / "plans.json").is_file():
            write_plans(options.images, folder, root)
            counts = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
            write_json(RESULTS.with_name("label_plans.json"), {"seed": SEED, "share": SHARE} | counts | machine())
        if options.train:
            train_all(folder, options, root)


def trained_on() -> dict[str, Any]:
    """Where and when the networks were trained."""
    import torch

    return machine() | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def machine() -> dict[str, Any]:
    """Where and when the results were measured."""
    return {"cpu": cpu_name(), "cores": cpu_count(), "date": datetime.now(UTC).date().isoformat()}


def measure(
    features: npt.NDArray[np.float32],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    seed: int,
    larger: Path | None,
) -> dict[str, Any]:
    """Average precision of the order of all labels, and precision and recall of those that T501 lists."""
    given, wrong = flip(labels, len(classes), seed)
    predictions = predict_held_out(features, given, classes)
    if larger is not None:
        predictions = predict_doubted(predictions, lambda chosen: larger_features(larger, images[chosen]))
    issues = find_label_issues(predictions)
    own = predictions.probabilities[np.arange(len(given)), given]
    others = predictions.probabilities.copy()
    others[np.arange(len(given)), given] = -1.0
    return {
        "flipped": int(wrong.sum()),
        "average_precision": round(float(average_precision_score(wrong, others.max(axis=1) - own)), 4),
        "listed": len(issues),
        "precision": round(float(wrong[issues.positions].mean()), 4),
        "recall": round(float(wrong[issues.positions].sum() / wrong.sum()), 4),
        "probe_accuracy": round(float((predictions.predicted == labels).mean()), 4),
    }


def flip(labels: npt.NDArray[np.int64], classes: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The labels with a share of `SHARE` replaced by others at random, and which of them were."""
    random = np.random.default_rng(seed)
    wrong = random.random(len(labels)) < SHARE
    return np.where(wrong, (labels + random.integers(1, classes, len(labels))) % classes, labels), wrong


def write_plans(images: int, folder: Path, root: Path) -> None:
    """Write `clean.csv`, `flipped.csv` and `repaired.csv`, and `plans.json` with what they hold, to `folder`.

    All three are plans of fixes of the same data; validation is held out of train, with the labels that train has.
    """
    data = load_dataset("cifar10", data_root=root)
    given, wrong = flip(data.train.labels, len(data.classes), SEED)
    left_out = {row: Fix("drop", "train", str(row)) for row in range(images, len(given))}
    flips = {
        int(row): Fix("relabel", "train", str(row), "", data.classes[given[row]])
        for row in np.flatnonzero(wrong)
        if row < images
    }
    suggested = suggest(FixPlan((*left_out.values(), *flips.values()), by_row=True), root)
    own = {row: data.classes[data.train.labels[row]] for row in flips | suggested}
    # Of an image that gets its own label back, nothing is left to fix.
    repaired = {row: fix for row, fix in (flips | suggested).items() if fix.to != own[row]}
    arms = {"clean": left_out, "flipped": left_out | flips, "repaired": left_out | repaired}
    for name, fixes in arms.items():
        write_fix_plan(folder / f"{name}.csv", FixPlan(tuple(fixes.values()), by_row=True))
    counts = {
        "n": images,
        "flipped": len(flips),
        "suggested": Counter(fix.action for fix in suggested.values()),
        "suggested_for_flipped": len(flips.keys() & suggested.keys()),
        "relabeled_right": sum(fix.to == own[row] for row, fix in suggested.items()),
    }
    write_json(folder / "plans.json", counts)


def train_all(folder: Path, options: argparse.Namespace, root: Path) -> None:
    """Train with each plan of `folder`, and write the test accuracies and the share that fixes recover after each run.

    Arms that are not trained now are kept from the file of an earlier run, which names the machine of each.
    """
    file = options.out or RESULTS.with_name("label_repair.json")
    arms = options.arms.split(",")
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() and set(arms) != set(ARMS) else {}
    accuracies: dict[str, list[float]] = earlier.get("accuracy", {}) | {arm: [] for arm in arms}
    machines: dict[str, Any] = earlier.get("machines", {}) | {arm: trained_on() for arm in arms}
    for seed in range(options.seeds):
        for arm in arms:
            accuracies[arm].append(round(train_once(folder / f"{arm}.csv", options.epochs, seed, root), 4))
            print(seed, arm, accuracies[arm][-1], flush=True)
            counts = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
            write_json(file, recovery(accuracies) | {"epochs": options.epochs, "machines": machines} | counts)


def recovery(accuracies: dict[str, list[float]]) -> dict[str, Any]:
    """Test accuracies by arm, their means, and the share of the accuracy lost by flipping that fixes recover."""
    means = {name: float(np.mean(values)) for name, values in accuracies.items() if values}
    lost = means["clean"] - means["flipped"] if {"clean", "flipped"} <= means.keys() else 0.0
    return {
        "what": "Test accuracy that training with the suggested fixes recovers after labels were flipped at random.",
        "share": SHARE,
        "seed": SEED,
        "recipe": "fast",
        "accuracy": accuracies,
        "mean_accuracy": {name: round(value, 4) for name, value in means.items()},
        "recovered": round((means["repaired"] - means["flipped"]) / lost, 3) if lost and "repaired" in means else None,
    }


def suggest(flips: FixPlan, root: Path) -> dict[int, Fix]:
    """The fixes by row that are suggested for T501 on data with flipped labels."""
    subject = Subject(load_dataset("cifar10", data_root=root, fix_plan=flips), spec="cifar10", data_root=root)
    subject.features = compute_features(
        choose_model(subject.data), np.concatenate([np.asarray(part.images) for part in subject.splits.values()])
    )
    findings = tuple(CHECKS.get("T501")().run(subject))
    plan = suggest_fixes(Diagnosis("cifar10", subject, findings, ("T501",))).plan
    return {int(fix.image): replace(fix, label="") for fix in plan.fixes}


def train_once(fix_plan: Path, epochs: int | None, seed: int, root: Path) -> float:
    """Test accuracy in one view of one training of `fast` with a plan of fixes."""
    from thirtytwo.evaluation.scoring import Scorer
    from thirtytwo.rundir import RunDir
    from thirtytwo.training.fit import fit
    from thirtytwo.workflows.prepare import prepare, write_plan

    settings: dict[str, Any] = {"data.fix_plan": str(fix_plan), "seed": seed, "data.keep_together": "copies"}
    settings |= {"schedule.epochs": epochs} if epochs else {}
    plan = prepare("cifar10", "fast", settings, "auto", root)
    with TemporaryDirectory() as place:
        directory = RunDir.create(Path(place) / "run")
        write_plan(plan, directory)
        fitted = fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, show=False)
    scorer = Scorer(fitted.net, fitted.mean, fitted.std, plan.hardware.device)
    return float((scorer.logits(plan.parts.test.images).argmax(1) == plan.parts.test.labels).mean())


def draw(file: Path, spec: str, root: Path) -> None:
    """The first suspects as `data doctor` lists them, with the label above each and the prediction below."""
    diagnosis = diagnose(spec, data_root=root, only=["T501"])
    if not diagnosis.findings or diagnosis.subject is None:
        print("T501 finds nothing")
        return
    (found,) = diagnosis.findings
    print(found.what)
    columns, side = 10, 192
    page = Image.new("RGB", (columns * (side + 4), 5 * (side + 30)), "white")
    for number, ((place,), note) in enumerate(zip(found.groups[:SHOWN], found.notes, strict=False)):
        left, top = number % columns * (side + 4), number // columns * (side + 30)
        page.paste(Image.fromarray(preview(diagnosis.subject, place, side)), (left, top + 13))
        labeled, predicted, _ = note.split(", ")
        ImageDraw.Draw(page).text((left, top), f"{number + 1} {labeled.removeprefix('labeled ')}", "black")
        ImageDraw.Draw(page).text((left, top + side + 13), predicted.removeprefix("predicted "), "red")
    page.save(file)


if __name__ == "__main__":
    sys.exit(main())
