"""Accuracy of models taught from a few photographs: draws from TrashNet, evaluated on all of its other images.

    python benchmarks/fewshot.py [--data-root DIR] [--draws 20] [--untimed] [--features FILE]

Features of all images are computed once; each draw then does what `thirtytwo teach` does with them. Also measured: how
often the promised 95 % interval holds the accuracy, detection of photographs of none of the classes, and the seconds of
one `thirtytwo teach` as a whole process.

The settings of the method (resize rule, number of views, penalties, effective number of held-out images) were chosen on
draws from one half of TrashNet, `development`; the accuracy on the other half alone is stated too, for draws whose
images all come from it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.metrics import wilson
from thirtytwo.evaluation.ood import class_mean, class_means, measure_unknown, threshold_at
from thirtytwo.fewshot import RESIZE, choose_base, find_class_files, load_classes
from thirtytwo.fewshot.cross_validation import cross_validate
from thirtytwo.fewshot.head import blend_for, fit_head
from thirtytwo.fewshot.linear_probe import CALLED_UNKNOWN, expected_accuracy, view_features
from thirtytwo.fewshot.views import VIEWS
from thirtytwo.images.decode import load_image
from thirtytwo.images.discover import find_images
from thirtytwo.inference.classifier import Classifier
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name

RESULTS = Path(__file__).parent / "results" / "fewshot.json"
EACH = (5, 20)
DEVELOPMENT_SEED = 20240
"""Seed of the half of TrashNet on which settings were chosen."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """Features of images as they are and means over their views, `(N, D)` each, and labels `(N,)`."""

    plain: Floats
    averaged: Floats
    labels: Ints
    development: npt.NDArray[np.bool_]


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy of models taught from a few photographs.")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument(
        "--features", type=Path, help="file to keep the features in, and to read them from if it exists"
    )
    parser.add_argument("--untimed", action="store_true", help="omit the seconds, on a machine that is busy")
    options = parser.parse_args()
    if options.data_root is None or not (Path(options.data_root) / "trashnet").is_dir():
        print("skipped: TrashNet was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    root = Path(options.data_root)
    found = find_class_files(root / "trashnet")
    base, reason = choose_base(None, found.sides())
    classifier = Classifier(base)
    files = {name: sorted(paths) for name, paths in found.files.items()}  # `development_half` depends on the order
    known = cached_features(classifier, files, options.features)
    unknown = unknown_features(classifier, root / "photos" / "none-of-cifar10")
    record = {
        "what": "linear probes of `thirtytwo teach` for the classes of TrashNet, on the features of a bundled model",
        "base": base.stem,
        "base_reason": reason,
        "views": VIEWS,
        "resize": RESIZE,
        "n": len(known.labels),
        "draws": options.draws,
        "tasks": [task(known, unknown, each, options.draws) for each in EACH],
        "unseen_half": [task(half(known), unknown, each, options.draws) for each in EACH],
        "seconds": None if options.untimed else seconds(files, max(EACH)),
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(RESULTS, record)
    print(json.dumps(record, indent=1))
    return 0


def cached_features(classifier: Classifier, files: Mapping[str, Sequence[Path]], cache: Path | None) -> Features:
    """`features_of`, read from the file `cache` if it exists and else written there."""
    if cache is not None and cache.is_file():
        with np.load(cache) as kept:
            return Features(**{key: kept[key] for key in kept.files})
    found = features_of(classifier, files)
    if cache is not None:
        np.savez(cache, **vars(found))
    return found


def features_of(classifier: Classifier, files: Mapping[str, Sequence[Path]]) -> Features:
    """Features of all images, a class at a time."""
    parts = []
    for name, paths in files.items():
        pixels, problems = load_classes({name: paths}, classifier.info.input_size, RESIZE)
        assert not problems, problems
        parts.append(view_features(classifier, np.stack(pixels[name]), VIEWS))
        print(f"features of {name}: {len(paths)} images", file=sys.stderr, flush=True)
    labels = np.repeat(np.arange(len(parts)), [len(plain) for plain, _ in parts])
    return Features(
        np.concatenate([plain for plain, _ in parts]),
        np.concatenate([averaged for _, averaged in parts]),
        labels,
        development_half(labels),
    )


def development_half(labels: Ints) -> npt.NDArray[np.bool_]:
    """Half of the images of each class, bool `(N,)`."""
    random = np.random.default_rng(DEVELOPMENT_SEED)
    chosen = np.zeros(len(labels), dtype=bool)
    for number in range(int(labels.max()) + 1):
        members = random.permutation(np.flatnonzero(labels == number))
        chosen[members[: len(members) // 2]] = True
    return chosen


def half(known: Features) -> Features:
    """The images that no setting was chosen on."""
    kept = ~known.development
    return Features(known.plain[kept], known.averaged[kept], known.labels[kept], known.development[kept])


def unknown_features(classifier: Classifier, folder: Path) -> Floats:
    files, _ = find_images([folder])
    pixels = np.stack([load_image(file, classifier.info.input_size, RESIZE).pixels for file in files])
    return view_features(classifier, pixels, 1)[0]


def task(known: Features, unknown: Floats, each: int, draws: int) -> dict[str, Any]:
    """Means over draws of `each` images of every class; seeds 0 to `draws` - 1."""
    rows = [draw(known, unknown, each, seed) for seed in range(draws)]
    means = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
    accuracies = [row["accuracy"] for row in rows]
    covered = int(sum(row["covered"] for row in rows))
    return {
        "images_per_class": each,
        **means,
        "accuracy_sd": round(float(np.std(accuracies, ddof=1)), 4),
        "accuracy_range": [round(min(accuracies), 4), round(max(accuracies), 4)],
        "covered_ci95": [round(end, 4) for end in wilson(covered, draws)],
    }


def draw(known: Features, unknown: Floats, each: int, seed: int) -> dict[str, float]:
    """Teach `each` images of every class and evaluate on all others."""
    random = np.random.default_rng(seed)
    classes = int(known.labels.max()) + 1
    rows = np.concatenate([random.permutation(np.flatnonzero(known.labels == one))[:each] for one in range(classes)])
    rest = np.setdiff1d(np.arange(len(known.labels)), rows)
    plain, averaged, labels = known.plain[rows], known.averaged[rows], known.labels[rows]
    found = cross_validate(plain, averaged, labels, classes, seed=seed)
    head = fit_head(averaged, labels, classes, found.penalty, blend=blend_for(labels, classes))
    hits = head.logits(known.plain[rest]).argmax(axis=1) == known.labels[rest]
    recalls = [hits[known.labels[rest] == one].mean() for one in range(classes)]
    promised = expected_accuracy(found.logits.argmax(axis=1) == labels)
    low, high = promised["ci95"]
    means = class_means(averaged, labels, classes)
    scores, threshold = class_mean(known.plain[rest], means), threshold_at(found.scores, CALLED_UNKNOWN)
    detected = measure_unknown(scores, class_mean(unknown, means), threshold)
    return {
        "accuracy": float(hits.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "promised": promised["value"],
        "interval_width": high - low,
        "covered": float(low <= hits.mean() <= high),
        "penalty": found.penalty,
        "unknown_auroc": detected["auroc"],
        "unknown_detected": detected["called_unknown"],
        "false_alarms": float((scores < threshold).mean()),
    }


def seconds(files: Mapping[str, Sequence[Path]], each: int) -> float:
    """Wall time of `thirtytwo teach` as a process, for `each` images of every class."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        for name, paths in files.items():
            (folder / name).mkdir(parents=True)
            for path in paths[:each]:
                (folder / name / path.name).symlink_to(path.resolve())
        started = time.perf_counter()
        command = [sys.executable, "-m", "thirtytwo", "teach", str(folder), "--out", str(Path(place) / "model.onnx")]
        subprocess.run(command, check=True, capture_output=True)
        return round(time.perf_counter() - started, 2)


if __name__ == "__main__":
    sys.exit(main())
