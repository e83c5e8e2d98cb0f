"""Agreement of the heatmaps in the bundled model files with Grad-CAM, on photographs.

    python benchmarks/explain_photos.py [--photos DIR] [--images 120]

DIR (`photos` under THIRTYTWO_DATA by default) holds the folders `cifar10` and `cifar100` of photographs. Class
activation maps of the most probable class come from the model file, Grad-CAM from the network that the file was made
from, with weights that were not rounded. Written to `benchmarks/results/explain_photos.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from thirtytwo.explain.gradients import Gradients
from thirtytwo.explain.methods import METHODS
from thirtytwo.explain.overlay import Heat
from thirtytwo.images.decode import load_image
from thirtytwo.images.discover import find_images
from thirtytwo.inference.classifier import load
from thirtytwo.io import write_json
from thirtytwo.models import Network
from thirtytwo.training.hardware import describe_machine

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "benchmarks")]

import bundle_imagenet  # noqa: E402
import bundle_photos  # noqa: E402

from explain import agreement  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "explain_photos.json"
BATCH = 10
HOT = 0.25
"""Share of a map's cells that are compared as its hottest ones."""


def joined(name: str) -> Network:
    """The network of the bundled model of CIFAR."""
    model = load(name)
    data = SimpleNamespace(classes=model.classes)
    return bundle_photos.network(name, bundle_photos.recipe_of(name, data, 1, model.info.input_size))


NETWORKS: dict[str, tuple[Callable[[], Network], str]] = {
    "cifar10": (lambda: joined("cifar10"), "cifar10"),
    "cifar100": (lambda: joined("cifar100"), "cifar100"),
    "imagenet": (bundle_imagenet.network, "cifar100"),
}
"""How to build the network of each bundled model, and the folder of the photographs that it explains."""


def main() -> int:
    root = os.environ.get("THIRTYTWO_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=Path(root) / "photos" if root else None)
    parser.add_argument("--images", type=int, default=120, help="photographs for each model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.photos is None or not options.photos.is_dir():
        print("skipped: name a folder of photographs with --photos, or set THIRTYTWO_DATA")
        return 0
    models = {}
    for name, (build, folder) in NETWORKS.items():
        files = find_images([str(options.photos / folder)])[0]
        drawn = np.sort(np.random.default_rng(0).permutation(len(files))[: options.images])
        models[name] = measure(name, build(), [files[at] for at in drawn])
        print(name, models[name], flush=True)
    result = {
        "what": __doc__.splitlines()[0],
        "seed": 0,
        "hot_share": HOT,
        "models": models,
        "hardware": describe_machine(torch.device("cpu")),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(options.out, result)
    return 0


def measure(name: str, net: Network, files: list[Path]) -> dict[str, Any]:
    """Agreement of class activation maps in the model file with Grad-CAM."""
    classifier = load(name)
    info = classifier.info
    cam, gradients = METHODS.get("cam").start(classifier, None), Gradients(net, info)
    maps, reference = [], []
    for start in range(0, len(files), BATCH):
        images = np.stack(
            [load_image(file, info.input_size, info.resize).pixels for file in files[start : start + BATCH]]
        )
        classes = classifier.run(images, ("logits",))["logits"].argmax(axis=1).astype(np.int64)
        maps.append(cam(images, classes))
        reference.append(gradients.grad_cam(images, classes))
    heat, expected = np.concatenate(maps), np.concatenate(reference)
    overlaps = hot_overlaps(heat, expected)
    return {
        "n": len(files),
        "cells_a_side": int(heat.shape[1]),
        **agreement(heat, expected),
        "mean_overlap_of_hottest": round(float(overlaps.mean()), 4),
        "overlap_by_chance": round(HOT / (2 - HOT), 4),
    }


def hot_overlaps(maps: Heat, reference: Heat) -> np.ndarray:
    """Intersection over union of the hottest cells of each pair of maps, `(N,)`."""
    count = max(1, round(HOT * maps[0].size))
    hot = [np.argsort(-one.reshape(len(one), -1), axis=1)[:, :count] for one in (maps, reference)]
    shared = np.array([len(np.intersect1d(*pair)) for pair in zip(*hot, strict=True)])
    return np.asarray(shared / (2 * count - shared))


if __name__ == "__main__":
    sys.exit(main())
