"""Accuracy of few-shot models: new classes from a few CIFAR-10 images, on the features of a CIFAR-100 network.

    python benchmarks/fewshot.py --model runs/cifar100 [--data-root DIR] [--repeats 20]

The two data sets have no class in common. Classes and images are sampled from train, and each sample is evaluated on
test images of its classes. Penalties of the linear probe and a simple baseline are compared on the same samples. Also
measured: how well cross-validation estimates test accuracy (its mean, and how often its interval contains it), the
model's confidence, and how many images of its own and of other classes are unknown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.calibration import softmax
from thirtytwo.evaluation.ood import class_mean, class_means
from thirtytwo.fewshot import fit_linear_probe
from thirtytwo.fewshot.linear_probe import PENALTY, fit_head
from thirtytwo.inference.classifier import Classifier, find_model
from thirtytwo.io import write_json

RESULTS = Path(__file__).parent / "results" / "fewshot.json"
TASKS = ((2, 5), (2, 20), (3, 10), (5, 10), (5, 50), (10, 20))
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
DRAWN, SCORED = 150, 100
"""Images of each class to sample from, and to evaluate on."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy of linear probes on a few images.")
    parser.add_argument("--model", help="a run or model file trained on CIFAR-100")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir():
        print("skipped: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    if options.model is None:
        print("skipped: give --model, a run trained on CIFAR-100")
        return 0
    classifier = Classifier(find_model(options.model))
    data = load_dataset("cifar10", data_root=Path(options.data_root), image_size=classifier.info.input_size)
    assert data.test is not None
    random = np.random.default_rng(0)
    train, test = some(data.train, DRAWN, random), some(data.test, SCORED, random)
    parts = {
        "train": features(classifier, train.images),
        "mirrored": features(classifier, train.images[:, :, ::-1]),
        "test": features(classifier, test.images),
    }
    rows = [task(classifier, train, test, parts, *sizes, options.repeats, random) for sizes in TASKS]
    found = {
        "what": "test accuracy of linear probes for classes of CIFAR-10 from few images, mean over samples",
        "model": f"{classifier.info.architecture} on {classifier.info.dataset}",
        "model_accuracy": classifier.info.accuracy,
        "penalty": PENALTY,
        "tasks": rows,
        "repeats": options.repeats,
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(RESULTS, found)
    print(json.dumps(found, indent=1))
    return 0


def some(images: ImageSet, each: int, random: np.random.Generator) -> ImageSet:
    """This many images of every class."""
    groups = [random.permutation(np.flatnonzero(images.labels == label))[:each] for label in range(10)]
    return images.take(np.concatenate(groups))


def features(classifier: Classifier, images: npt.NDArray[np.uint8]) -> Floats:
    parts = [
        classifier.run(np.ascontiguousarray(images[at : at + 50]), ("features",))["features"]
        for at in range(0, len(images), 50)
    ]
    return np.concatenate(parts).astype(np.float64)


def task(
    classifier: Classifier,
    train: ImageSet,
    test: ImageSet,
    parts: dict[str, Floats],
    classes: int,
    images: int,
    repeats: int,
    random: np.random.Generator,
) -> dict[str, Any]:
    """Means over samples of this many classes with this many images each."""
    scores: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        scores.setdefault(name, []).append(float(value))

    for draw in range(repeats):
        names = random.permutation(10)[:classes]
        rows = np.concatenate([random.permutation(np.flatnonzero(train.labels == one))[:images] for one in names])
        labels = np.repeat(np.arange(classes), images)
        seen = np.flatnonzero(np.isin(test.labels, names))
        place = np.argsort(names)  # of each label among the names
        truth = place[np.searchsorted(np.sort(names), test.labels[seen])]
        both, twice = np.concatenate([parts["train"][rows], parts["mirrored"][rows]]), np.tile(labels, 2)
        for penalty in PENALTIES:
            logits = fit_head(both, twice, classes, penalty).logits(parts["test"][seen])
            note(f"penalty {penalty:g}", (logits.argmax(axis=1) == truth).mean())
        alone = fit_head(parts["train"][rows], labels, classes).logits(parts["test"][seen])
        note("without mirror images", (alone.argmax(axis=1) == truth).mean())
        means = class_means(both, twice, classes)
        directions = parts["test"] / np.linalg.norm(parts["test"], axis=1, keepdims=True)
        note("nearest class mean", ((directions[seen] @ means.T).argmax(axis=1) == truth).mean())

        taught = fit_linear_probe(
            classifier, {str(one): list(train.images[rows[labels == at]]) for at, one in enumerate(names)}, seed=draw
        )
        shares = softmax(taught.head.logits(parts["test"][seen]), taught.info.temperature)
        accuracy = (shares.argmax(axis=1) == truth).mean()
        low, high = taught.accuracy["ci95"]
        note("taught", accuracy)
        note("cross_validated", taught.accuracy["value"])
        note("interval_holds_it", low <= accuracy <= high)
        note("confidence", shares.max(axis=1).mean())
        known = class_mean(parts["test"], taught.means) >= taught.info.unknown_threshold
        note("own_called_unknown", 1 - known[seen].mean())
        if classes < 10:
            note("others_called_unknown", 1 - np.delete(known, seen).mean())
    return {"classes": classes, "pictures_each": images} | {
        name: round(float(np.mean(values)), 4) for name, values in scores.items()
    }


if __name__ == "__main__":
    sys.exit(main())
