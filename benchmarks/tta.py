"""Selective test-time augmentation: accuracy, calibration and cost per image of the bundled models by `--tta`.

    python benchmarks/tta.py [--models cifar10-tiny,cifar100-tiny,cifar10,cifar100] [--images 10000] [--large 2000]

Classifies the first test images of CIFAR-10 and CIFAR-100, at most `--large` of them where the model's input is larger
than theirs. The threshold of `auto` is the model's own, or the usual one where it has none; nothing is chosen on test.
The cost is the number of views per image, and the time of a pass relative to one view in the same run. Seconds count
only on a machine with nothing else to do: `--untimed` omits them. Writes `benchmarks/results/tta.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.data.load import load_dataset
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.inference.classifier import Classifier, load
from thirtytwo.inference.views import Tta
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name
from thirtytwo.predictions import Predictions

RESULTS = Path(__file__).parent / "results" / "tta.json"
SETTINGS: tuple[Tta, ...] = ("off", "auto", "all")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="cifar10-tiny,cifar100-tiny,cifar10,cifar100", help="separated by commas")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=2_000, help="number of images of models with larger inputs")
    parser.add_argument("--untimed", action="store_true", help="omit the seconds, on a machine that is busy")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    root = os.environ.get("THIRTYTWO_DATA")
    if root is None:
        print("skipped: set THIRTYTWO_DATA to a folder with the data sets")
        return 0
    content: dict[str, Any] = {"what": __doc__.splitlines()[0], "cpu": cpu_name(), "cores": cpu_count()}
    content |= {"date": datetime.now(UTC).date().isoformat(), "models": {}}
    for name in options.models.split(","):
        content["models"][name] = measure(name, options, Path(root))
        print(name, content["models"][name], flush=True)
        write_json(options.out, content)
    return 0


def measure(name: str, options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Accuracy, ECE, views and relative time of a bundled model with each setting."""
    classifier = load(name)
    size, spec = classifier.info.input_size, name.split("-")[0]
    count = options.images if size <= 32 else options.large
    test = load_dataset(spec, data_root=root).test
    assert test is not None
    images, labels = list(test.images[:count]), test.labels[:count]
    classifier.predict(images[:64])  # warm-up
    record: dict[str, Any] = {"n": len(images), "input": size, "shift": classifier.tta.shift}
    record["threshold"] = classifier.tta.threshold
    seconds: dict[str, float] = {}
    for setting in SETTINGS:
        started = time.perf_counter()
        probabilities = predict(classifier, images, setting)
        seconds[setting] = time.perf_counter() - started
        if setting == "off":
            doubtful = float((probabilities.max(axis=1) < classifier.tta.threshold).mean())
        metrics = compute_metrics(
            Predictions(classifier.classes, labels, probabilities, np.arange(len(labels)), None),
            dataset=spec,
            split="test",
            test_evaluations=1,
        )
        share = {"off": 0.0, "auto": doubtful, "all": 1.0}[setting]
        record[setting] = {
            "accuracy": metrics["accuracy"],
            "ece": round(metrics["ece"]["value"], 4),
            "views": round(1 + share * (5 if classifier.tta.shift else 1), 3),
            "time": None if options.untimed else round(seconds[setting] / seconds["off"], 2),
        }
    return record


def predict(classifier: Classifier, images: list[np.ndarray[Any, Any]], setting: Tta) -> np.ndarray[Any, Any]:
    """Probabilities `(N, C)` in the order of the classes."""
    rows = np.zeros((len(images), len(classifier.classes)), dtype=np.float32)
    position = {name: index for index, name in enumerate(classifier.classes)}
    for row, result in zip(rows, classifier.predict_iter(images, len(position), tta=setting), strict=True):
        for name, value in result.predictions:  # type: ignore[union-attr]
            row[position[name]] = value
    return rows


if __name__ == "__main__":
    sys.exit(main())
