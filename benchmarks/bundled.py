"""The bundled models on photographs: accuracy, and detection of unknown ones.

    python benchmarks/bundled.py [--photos DIR]

DIR (`photos` under THIRTYTWO_DATA by default) holds a folder for each data set, `cifar10` and `cifar100`, with a folder
of photographs for each of some of its classes, and `none-of-cifar10` with photographs of other things. Files are
classified as `thirtytwo predict` does. No model was trained or calibrated on them. Written to
`benchmarks/results/bundled.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.evaluation.metrics import wilson
from thirtytwo.evaluation.ood import auroc, fpr_at_tpr
from thirtytwo.images.decode import load_image
from thirtytwo.images.discover import find_images
from thirtytwo.inference.classifier import Classifier, bundled_models
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name, package_version

RESULTS = Path(__file__).parent / "results" / "bundled.json"
UNKNOWN = {"cifar10": "none-of-cifar10"}
BATCH = 32


def main() -> int:
    root = os.environ.get("THIRTYTWO_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=Path(root) / "photos" if root else None)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.photos is None or not options.photos.is_dir():
        print("skipped: name a folder of photographs with --photos, or set THIRTYTWO_DATA")
        return 0
    models = {}
    for name, path in bundled_models().items():
        data = name.removesuffix("-tiny")
        if (options.photos / data).is_dir():
            models[name] = measure(Classifier(path), options.photos / data, options.photos / UNKNOWN.get(data, "-"))
            print(name, models[name])
    result = {
        "what": __doc__.splitlines()[0],
        "models": models,
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "onnxruntime": package_version("onnxruntime"),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(options.out, result)
    return 0


def measure(classifier: Classifier, known: Path, unknown: Path) -> dict[str, Any]:
    """Accuracy on the photographs below `known`, and OOD detection against those below `unknown` if it exists."""
    files, _ = find_images([str(known)])
    names = np.array([file.parent.name for file in files])
    tops, scores = outputs(classifier, files)
    right = int((tops == names).sum())
    found: dict[str, Any] = {
        "n": len(files),
        "classes": len(set(names)),
        "accuracy": {"value": right / len(files), "ci95": list(wilson(right, len(files)))},
    }
    threshold = classifier.info.unknown_threshold
    if unknown.is_dir() and threshold is not None:
        others = outputs(classifier, find_images([str(unknown)])[0])[1]
        found["unknown"] = {
            "n": len(others),
            "auroc": auroc(scores, others),
            "fpr95": fpr_at_tpr(scores, others),
            "called_unknown": float((others < threshold).mean()),
            "known_called_unknown": float((scores < threshold).mean()),
        }
    return found


def outputs(classifier: Classifier, files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class and the OOD score of each file."""
    info, tops, scores = classifier.info, [], []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        pixels = np.stack([load_image(file, info.input_size, info.resize).pixels for file in batch])
        found = classifier.run(pixels, ("probabilities", "known_score"))
        tops += [info.classes[index] for index in found["probabilities"].argmax(axis=1)]
        scores.append(found["known_score"])
    return np.array(tops), np.concatenate(scores)


if __name__ == "__main__":
    sys.exit(main())
