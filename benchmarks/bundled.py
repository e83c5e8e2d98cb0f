"""The bundled models on photographs: accuracy, and detection of unknown ones.

    python benchmarks/bundled.py [--photos DIR]

DIR (`photos` under THIRTYTWO_DATA by default) holds a folder for each data set, `cifar10` and `cifar100`, with a folder
of photographs for each of some of its classes, and `none-of-cifar10` with photographs of other things. Photographs of
CIFAR-10's classes, and of other things but watches and pagodas (clocks and houses), show none of CIFAR-100's. Files are
classified as `thirtytwo predict` does. No model was trained or calibrated on them, nor were thresholds for unknown
images set by them: those of `cifar10` and `cifar100` come from other photographs (`tools/bundle_photos.py`). Written to
`benchmarks/results/bundled.json`; `make docs` copies the metrics to the models' cards.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.evaluation.metrics import proportion
from thirtytwo.evaluation.ood import auroc, fpr_at_tpr
from thirtytwo.images.decode import load_image
from thirtytwo.images.discover import find_images
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import bundled_models
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name, package_version

RESULTS = Path(__file__).parent / "results" / "bundled.json"
UNKNOWN = {"cifar10": ("none-of-cifar10",), "cifar100": ("cifar10", "none-of-cifar10")}
"""Folders of photographs that show none of a data set's classes."""
KNOWN_OTHERS = {"cifar100": ("watch", "pagoda")}
"""Beginnings of the names of files in them that do."""
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
            known, unknown = find_images([str(options.photos / data)])[0], unknown_files(options.photos, data)
            models[name] = measure(Classifier(path), known, unknown)
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


def unknown_files(photos: Path, data: str) -> list[Path]:
    """Photographs that show none of the data set's classes."""
    folders = [str(photos / folder) for folder in UNKNOWN[data] if (photos / folder).is_dir()]
    files = find_images(folders)[0] if folders else []
    return [file for file in files if not file.name.startswith(KNOWN_OTHERS.get(data, ()))]


def measure(classifier: Classifier, known: list[Path], unknown: list[Path]) -> dict[str, Any]:
    """Accuracy on photographs, whose folders are their classes, and OOD detection against the `unknown` ones if any."""
    names = np.array([file.parent.name for file in known])
    tops, scores = outputs(classifier, known)
    found: dict[str, Any] = {
        "n": len(known),
        "classes": len(set(names)),
        "accuracy": proportion(int((tops == names).sum()), len(known)),
    }
    threshold = classifier.info.unknown_threshold
    if unknown and threshold is not None:
        others = outputs(classifier, unknown)[1]
        found["unknown"] = {
            "n": len(others),
            "auroc": auroc(scores, others),
            "fpr95": fpr_at_tpr(scores, others),
            "called_unknown": proportion(int((others < threshold).sum()), len(others)),
            "known_called_unknown": proportion(int((scores < threshold).sum()), len(known)),
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
