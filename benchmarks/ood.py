"""Comparison of OOD scores on CIFAR, and the quality of the chosen one.

    python benchmarks/ood.py RUN... [--data-root DIR] [--bank 10000] [--limit N]

RUN are run directories trained on CIFAR-10 and CIFAR-100 with validation held out. The score is chosen on images made
for the choice (`choosing`): the mean AUROC of validation against each of them, over all runs. Then every score is
measured on other images (`ood_sets`): the other CIFAR, handwritten digits, noise and plain colors, against test, with
the threshold that 5 % of validation are below. Written to `benchmarks/results/ood.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from thirtytwo.data.split import limit
from thirtytwo.evaluation.calibration import log_sum_exp, softmax
from thirtytwo.evaluation.ood import (
    FALSE_ALARM_RATE,
    OodSet,
    auroc,
    class_mean,
    class_means,
    false_alarms,
    measure_unknown,
    ood_sets,
    threshold_at,
)
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.io import write_json
from thirtytwo.rundir import RunDir
from thirtytwo.training.hardware import choose_hardware, describe_machine
from thirtytwo.workflows.loading import load_run, own_images

RESULTS = Path(__file__).parent / "results" / "ood.json"
OTHER = {"cifar10": "cifar100", "cifar100": "cifar10"}
"""Data sets without a class in common."""
MADE = 1000
"""Number of images of each kind made for the choice."""
NEAREST = ((2_000, 5), (10_000, 10))
"""Number of training images among which the nearest are searched, and the rank of the one that counts."""

Pixels = npt.NDArray[np.uint8]
Outputs = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
Score = Callable[[Outputs], npt.NDArray[np.float64]]


def max_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Maximum softmax probability (Hendrycks and Gimpel 2017, arXiv 1610.02136); logits `(N, C)` → `(N,)`."""
    return np.asarray(softmax(logits).max(axis=1))


def max_logit(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Maximum logit (Hendrycks et al. 2022, arXiv 1911.11132); logits `(N, C)` → `(N,)`."""
    return logits.max(axis=1).astype(np.float64)


def energy(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Negative free energy log Σ exp(logit) (Liu et al. 2020, arXiv 2010.03759); logits `(N, C)` → `(N,)`."""
    return log_sum_exp(logits.astype(np.float64))


LOGIT_SCORES = {"max_softmax": max_softmax, "max_logit": max_logit, "energy": energy}
"""Scores computed from logits alone."""


def nearest(features: npt.NDArray[np.float32], bank: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float64]:
    """Negative distance to the k-th nearest training image (Sun et al. 2022, arXiv 2204.06507).

    `features` `(N, D)` and those of training images, `bank` `(M, D)`, are normalized to length 1; the scores `(N,)` are
    -2 to 0.
    """
    queries, known = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (features, bank)
    )
    found = []
    for start in range(0, len(queries), 1000):
        similarity = queries[start : start + 1000] @ known.T  # (n, M); 2 - 2 similarity is the squared distance
        found.append(np.partition(similarity, len(known) - k, axis=1)[:, len(known) - k])
    return np.asarray(-np.sqrt(np.maximum(2.0 - 2.0 * np.concatenate(found).astype(np.float64), 0.0)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Comparison of OOD scores on CIFAR.")
    parser.add_argument("runs", nargs="*", type=Path, help="run directories trained on CIFAR-10 or CIFAR-100")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--bank", type=int, default=10_000, help="training images whose features are kept")
    parser.add_argument("--limit", type=int, help="use at most this many images of each set")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.runs or options.data_root is None:
        print("skipped: name run directories, and set THIRTYTWO_DATA or give --data-root")
        return 0
    runs = [measure(path, Path(options.data_root), options.bank, options.limit) for path in options.runs]
    names = list(runs[0]["scores"])
    mean = {name: fmean(value for run in runs for value in run["scores"][name]["choosing"].values()) for name in names}
    chosen = max(names, key=lambda name: mean[name])
    found = {
        "what": "scores for unknown images: AUROC, false positives at 95 % true positives, and the share called "
        "unknown at the threshold below which 5 % of validation lie",
        "chosen": chosen,
        "mean_auroc_choosing": mean,
        "bank": options.bank,
        "limit": options.limit,
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": describe_machine(choose_hardware(RunDir.open(options.runs[0]).read_recipe().train, "cpu").device),
        "runs": runs,
    }
    write_json(options.out, found)
    for name in sorted(names, key=lambda name: -mean[name]):
        print(f"{name:18} {mean[name]:.4f} on images made for the choice")
    for run in runs:
        print(f"\n{run['data']}, seed {run['seed']}: test images unknown, then AUROC / false positives at 95 %")
        for name, score in run["scores"].items():
            others = "  ".join(
                f"{what} {row['auroc']:.3f} / {row['fpr95']:.3f}" for what, row in score["against"].items()
            )
            print(f"{name:18}  {score['test_called_unknown']:.3f}  {others}")
    print(f"\n{options.out}")
    return 0


def measure(path: Path, root: Path, bank: int, most: int | None) -> dict[str, Any]:
    """Every score of one run on all images it was not trained on."""
    run = RunDir.open(path)
    loaded = load_run(run, root)
    recipe, info, data = loaded.recipe, loaded.info, loaded.data
    spec = loaded.environment["data"]["spec"]
    hardware = choose_hardware(recipe.train, "cpu")
    scorer = Scorer(loaded.network, info.mean, info.std, hardware.device)
    own, held = data.dataset, own_images(data, "val", run)
    known = limit(data.parts.train, bank, 0)

    def looked(images: Pixels) -> Outputs:
        return scorer.outputs(images[:most])

    scores = every_score(scorer.outputs(known.images)[1], known.labels, len(own.classes))
    val, test = looked(held.images), looked(own_images(data, "test", run).images)
    choosing = {name: looked(images) for name, images in made_for_choosing(held.images[:MADE])}
    sets = ood_sets(info, [OTHER[spec]] if spec in OTHER else [], root, most=10_000)
    others = {one.name: looked(one.images) for one in sets if isinstance(one, OodSet)}
    measured = {}
    for name, score in scores.items():
        of_val, of_test = score(val), score(test)
        threshold = threshold_at(of_val, FALSE_ALARM_RATE)
        measured[name] = {
            "threshold": threshold,
            "val_called_unknown": false_alarms(of_val, threshold),
            "test_called_unknown": false_alarms(of_test, threshold),
            "choosing": {what: auroc(of_val, score(seen)) for what, seen in choosing.items()},
            "against": {what: measure_unknown(of_test, score(seen), threshold) for what, seen in others.items()},
        }
    counts = {"val": len(val[0]), "test": len(test[0]), **{what: len(seen[0]) for what, seen in others.items()}}
    return {
        "data": spec,
        "seed": recipe.seed,
        "recipe": recipe.name,
        "accuracy": info.accuracy,
        "n": counts,
        "n_choosing": {what: len(seen[0]) for what, seen in choosing.items()},
        "scores": measured,
    }


def every_score(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], classes: int) -> dict[str, Score]:
    """The candidate scores by name, from logits and features of the training images."""

    def of_logits(score: Callable[[npt.ArrayLike], npt.NDArray[np.float64]], seen: Outputs) -> npt.NDArray[np.float64]:
        return score(seen[0])

    def of_mean(means: npt.NDArray[np.float32], seen: Outputs) -> npt.NDArray[np.float64]:
        return class_mean(seen[1], means)

    def of_nearest(bank: npt.NDArray[np.float32], k: int, seen: Outputs) -> npt.NDArray[np.float64]:
        return nearest(seen[1], bank, k)

    scores: dict[str, Score] = {name: partial(of_logits, score) for name, score in LOGIT_SCORES.items()}
    scores["class_mean"] = partial(of_mean, class_means(features, labels, classes))
    order = np.random.default_rng(0).permutation(len(features))
    for size, k in NEAREST:
        scores[f"nearest_{k}_of_{size}"] = partial(of_nearest, features[order[:size]], k)
    return scores


def made_for_choosing(photos: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Images of other kinds than the scores are measured on, by kind, as many of each as `photos` `(N, S, S, 3)`."""
    count, size = photos.shape[:2]
    random = np.random.default_rng(7)
    down, across = np.mgrid[0:size, 0:size] / size
    for cells in (4, 8):
        blots = random.integers(0, 256, (count, cells, cells, 3), dtype=np.uint8)
        grown = [Image.fromarray(blot).resize((size, size), Image.Resampling.BICUBIC) for blot in blots]
        yield f"smooth noise, {cells}×{cells}", np.stack([np.asarray(image) for image in grown])
    colours, turn = random.integers(0, 256, (count, 2, 1, 1, 3)), random.random((count, 1, 1)) * np.pi
    along = np.cos(turn) * (across - 0.5) + np.sin(turn) * (down - 0.5)  # (N, S, S)
    bands = np.sin(2 * np.pi * random.integers(2, 12, (count, 1, 1)) * along) > 0
    yield "stripes", np.where(bands[..., None], colours[:, 0], colours[:, 1]).astype(np.uint8)
    share = np.clip(along + 0.5, 0, 1)[..., None]
    yield "gradients", (share * colours[:, 0] + (1 - share) * colours[:, 1]).astype(np.uint8)
    yield "photographs cut up", np.stack([cut_up(photo, random) for photo in photos])
    yield "letters", np.stack([letter(size, *pair.reshape(2, 3).tolist(), random) for pair in colours])
    specks = random.integers(0, 2, (count, size, size, 1), dtype=np.uint8) * np.uint8(255)
    yield "black and white specks", np.repeat(specks, 3, axis=3)


def cut_up(photo: Pixels, random: np.random.Generator) -> Pixels:
    """A photograph with its sixteen tiles shuffled."""
    tile = len(photo) // 4
    tiles = photo.reshape(4, tile, 4, tile, 3).swapaxes(1, 2).reshape(16, tile, tile, 3)[random.permutation(16)]
    return tiles.reshape(4, 4, tile, tile, 3).swapaxes(1, 2).reshape(photo.shape)


def letter(size: int, ink: list[int], paper: list[int], random: np.random.Generator) -> Pixels:
    """A capital letter on a plain background."""
    image = Image.new("RGB", (size, size), tuple(paper))
    font = ImageFont.load_default(size=int(random.integers(size // 2, size)))
    ImageDraw.Draw(image).text((size // 5, 2), chr(random.integers(65, 91)), fill=tuple(ink), font=font)
    return np.asarray(image)


if __name__ == "__main__":
    sys.exit(main())
