"""Agreement of the heatmaps in model.onnx with Grad-CAM, and the faithfulness of each heatmap method.

    python benchmarks/explain.py RUN... [--data-root DIR] [--images 300] [--seed 0]

RUN are run directories with weights. Images are sampled from the run's test split. Each method explains the most
probable class. Deletion and insertion scores are compared with those of random maps of the same resolution, and of a
centered blob. Written to `benchmarks/results/explain.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from thirtytwo.data.load import load_dataset
from thirtytwo.explain.explainer import Explainer
from thirtytwo.explain.faithfulness import BLUR, STEPS, Score, score_maps
from thirtytwo.explain.methods import METHODS, run_in_batches
from thirtytwo.explain.overlay import resized_map
from thirtytwo.io import write_json
from thirtytwo.rundir import RunDir
from thirtytwo.training.hardware import describe_machine

RESULTS = Path(__file__).parent / "results" / "explain.json"
SHOWN = ("cam", "gradcam", "integrated", "occlusion")
MIDDLE = "middle"
BATCH = 50

Maps = npt.NDArray[np.float32]


def main() -> int:
    parser = argparse.ArgumentParser(description="Agreement of heatmaps with Grad-CAM, and their faithfulness.")
    parser.add_argument("runs", nargs="*", type=Path, help="run directories with weights")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--images", type=int, default=300, help="images sampled from test for each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.runs or options.data_root is None:
        print("skipped: name run directories, and set THIRTYTWO_DATA or give --data-root")
        return 0
    runs = [measure(path, Path(options.data_root), options.images, options.seed) for path in options.runs]
    found = {
        "what": "maps of the most probable class: agreement with Grad-CAM, and deletion and insertion scores (areas, "
        "mean over images) compared with random maps that are as coarse",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": describe_machine(torch.device("cpu")),
        "split": "test",
        "n": options.images,
        "seed": options.seed,
        "steps": STEPS,
        "stand_in": f"the image blurred by {BLUR:g} of its side",
        "runs": runs,
    }
    write_json(options.out, found)
    for run in runs:
        print(f"\n{run['data']}, {run['n']} images")
        for name, score in run["scores"].items():
            print(f"{name:11}" + "  ".join(f"{key} {value}" for key, value in score.items()))
        for name, agreement in run["agreement_with_gradcam"].items():
            print(f"{name:11}" + "  ".join(f"{key} {value}" for key, value in agreement.items()))
    print(f"\n{options.out}")
    return 0


def measure(path: Path, root: Path, count: int, seed: int) -> dict[str, Any]:
    """Every method on images of one run's test split."""
    start = time.perf_counter()
    run = RunDir.open(path)
    environment = run.read_json(run.environment)
    explainers = {name: Explainer(path, name) for name in SHOWN}
    classifier = explainers["cam"].classifier
    size, rule = classifier.info.input_size, classifier.info.resize
    data = load_dataset(environment["data"]["spec"], data_root=root, image_size=size, resize=rule)
    if data.test is None:
        raise SystemExit("the data has no test split")
    drawn = np.random.default_rng(seed).permutation(len(data.test))[:count]
    images = np.ascontiguousarray(data.test.images[np.sort(drawn)])
    model = partial(run_in_batches, classifier, output="probabilities")
    probabilities = model(images)
    classes = probabilities.argmax(axis=1).astype(np.int64)
    maps: dict[str, Maps] = {name: in_batches(explainer, images, classes) for name, explainer in explainers.items()}
    maps[MIDDLE] = middle(len(images), size)
    places = int(maps["cam"].shape[1])
    scores: dict[str, Any] = {}
    for name, values in maps.items():
        grain = (METHODS.get(name).grain if name in METHODS else None) or places
        scores[name] = summary(score_maps(model, images, values, classes, grain=grain, random_maps=1, seed=seed))
        print(f"{environment['data']['spec']} {name}: {scores[name]}", file=sys.stderr, flush=True)
    return {
        "data": environment["data"]["spec"],
        "recipe": run.read_recipe().name,
        "seed": run.read_recipe().seed,
        "n": len(images),
        "right": round(float((classes == data.test.labels[np.sort(drawn)]).mean()), 4),
        "confidence": round(float(probabilities.max(axis=1).mean()), 4),
        "places_a_side": places,
        "agreement_with_gradcam": {
            name: agreement(values, maps["gradcam"]) for name, values in maps.items() if name != "gradcam"
        },
        "scores": scores,
        "seconds": round(time.perf_counter() - start),
    }


def in_batches(explainer: Explainer, images: npt.NDArray[np.uint8], classes: npt.NDArray[np.int64]) -> Maps:
    """Raw heatmaps of many images."""
    parts = [slice(at, at + BATCH) for at in range(0, len(images), BATCH)]
    return np.concatenate([explainer.raw_maps(images[part], classes[part]) for part in parts])


def middle(count: int, size: int) -> Maps:
    """The same map for every image, hottest in the center."""
    off = np.arange(size, dtype=np.float32) - (size - 1) / 2
    return np.repeat(-(off[:, None] ** 2 + off**2)[None], count, axis=0)


def agreement(maps: Maps, reference: Maps) -> dict[str, float]:
    """Rank correlation over positions, and how often the maximum is at the same one, at the coarser resolution."""
    height, width = min(maps.shape[1:], reference.shape[1:])
    pairs = [
        (resized_map(one, height, width).ravel(), resized_map(other, height, width).ravel())
        for one, other in zip(maps, reference, strict=True)
    ]
    ranks = np.array([spearmanr(*pair).statistic for pair in pairs])
    return {
        "median_rank_correlation": round(float(np.median(ranks)), 4),
        "least_rank_correlation": round(float(ranks.min()), 4),
        "same_maximum": round(float(np.mean([one.argmax() == other.argmax() for one, other in pairs])), 4),
    }


def summary(scores: Sequence[Score]) -> dict[str, Any]:
    """Means over images, and a 95 % interval of how much better than random."""
    gains = np.array([score.gain for score in scores])
    spread = 1.96 * gains.std(ddof=1) / len(gains) ** 0.5
    return {
        "deletion": round(float(np.mean([score.deletion for score in scores])), 4),
        "insertion": round(float(np.mean([score.insertion for score in scores])), 4),
        "random": round(float(np.mean([score.random for score in scores])), 4),
        "better_by": round(float(gains.mean()), 4),
        "ci95": [round(float(gains.mean() - spread), 4), round(float(gains.mean() + spread), 4)],
        "share_better": round(float((gains > 0).mean()), 4),
    }


if __name__ == "__main__":
    sys.exit(main())
