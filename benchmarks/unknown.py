"""How well scores of model.onnx tell CIFAR pictures from others, and how often they cry wolf.

    python benchmarks/unknown.py RUN... [--data-root DIR] [--bank 10000] [--k 1,10,50] [--limit N]

RUN are run directories trained on CIFAR-10 or CIFAR-100 with validation held out. For each score the threshold is set
on validation so that 5 % of it is called unknown; test is known, and unknown are the other CIFAR's test, handwritten
digits, plain noise and plain colours. Written to `benchmarks/results/unknown.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.imageset import ImageSet
from thirtytwo.data.load import load_dataset
from thirtytwo.files import write_json
from thirtytwo.judge.unknown import LOGIT_SCORES, false_alarms, measure_unknown, nearest, threshold_at
from thirtytwo.predict.predictor import Classifier, load
from thirtytwo.rundir import RunDir

RESULTS = Path(__file__).parent / "results" / "unknown.json"
OTHER = {"cifar10": "cifar100", "cifar100": "cifar10"}
PLAIN = 2000  # pictures of noise and of colours
BATCH = 500
SHARE = 0.05

Pixels = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[np.float32]]
Scores = dict[str, npt.NDArray[np.float64]]


def main() -> int:
    parser = argparse.ArgumentParser(description="How well scores tell CIFAR pictures from others.")
    parser.add_argument("runs", nargs="*", type=Path, help="run directories trained on CIFAR-10 or CIFAR-100")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--bank", type=int, default=10_000, help="training pictures among which the nearest are sought")
    parser.add_argument("--k", default="1,10,50", help="which nearest, separated by commas")
    parser.add_argument("--limit", type=int, help="look at no more than this many pictures of each set")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.runs or options.data_root is None:
        print("skipped: name run directories, and set THIRTYTWO_DATA or give --data-root")
        return 0
    ks = [int(k) for k in options.k.split(",")]
    runs = [measure(path, Path(options.data_root), options.bank, ks, options.limit) for path in options.runs]
    found = {
        "what": "scores for unknown pictures: AUROC, false positives at 95 % true positives, and the share called "
        "unknown at the threshold below which 5 % of validation lie",
        "bank": options.bank,
        "limit": options.limit,
        "date": datetime.now(UTC).date().isoformat(),
        "runs": runs,
    }
    write_json(options.out, found)
    for run in runs:
        print(f"\n{run['data']}, seed {run['seed']}: test called unknown, then AUROC / false positives at 95 %")
        for name, score in run["scores"].items():
            others = "  ".join(
                f"{what} {result['auroc']:.3f} / {result['fpr95']:.3f}" for what, result in score["unknown"].items()
            )
            print(f"{name:12}  {score['test_called_unknown']:.3f}  {others}")
    print(f"\n{options.out}")
    return 0


def measure(path: Path, root: Path, bank: int, ks: list[int], limit: int | None) -> dict[str, Any]:
    """Every score of one run against everything it was not trained on."""
    start = time.perf_counter()
    run = RunDir.open(path)
    recipe = run.read_recipe()
    spec = run.read_json(run.environment)["data"]["spec"]
    if spec not in OTHER:
        raise SystemExit(f"{path} was trained on {spec!r}; expected one of {', '.join(OTHER)}")
    classifier = load(path)
    size, resize = classifier.info.input_size, classifier.info.resize
    own = load_dataset(spec, data_root=root, image_size=size, resize=resize)
    other = load_dataset(OTHER[spec], data_root=root, image_size=size, resize=resize)
    digits = load_dataset("digits", image_size=size, resize=resize)
    if own.test is None or other.test is None or digits.test is None:
        raise SystemExit("a data set has no test split")
    held = np.isin(own.train.rows, np.asarray(run.read_json(run.split)["val_rows"], dtype=np.int64))
    if not held.any():
        raise SystemExit(f"{path} held no validation out; the threshold is set on that")
    random = np.random.default_rng(0)
    trained_on = np.flatnonzero(~held)
    of_bank = np.sort(random.choice(trained_on, min(bank, len(trained_on)), replace=False))
    known = outputs(classifier, own.train.images[of_bank])["features"]

    def scored(images: Pixels) -> Scores:
        return dict(scores(outputs(classifier, images[:limit]), known, ks))

    val, test = scored(own.train.images[np.flatnonzero(held)]), scored(own.test.images)
    unknown = {
        OTHER[spec]: scored(other.test.images),
        "digits": scored(joined(digits.train, digits.test)),
        "noise": scored(random.integers(0, 256, (PLAIN, size, size, 3), dtype=np.uint8)),
        "colours": scored(plain_colours(PLAIN, size, random)),
    }
    thresholds = {name: threshold_at(values, SHARE) for name, values in val.items()}
    return {
        "data": spec,
        "seed": recipe.seed,
        "recipe": recipe.name,
        "accuracy": classifier.info.accuracy,
        "n": {"val": first(val), "test": first(test), **{what: first(values) for what, values in unknown.items()}},
        "seconds": round(time.perf_counter() - start, 1),
        "scores": {
            name: {
                "threshold": thresholds[name],
                "val_called_unknown": false_alarms(val[name], thresholds[name]),
                "test_called_unknown": false_alarms(test[name], thresholds[name]),
                "unknown": {
                    what: measure_unknown(test[name], values[name], thresholds[name])
                    for what, values in unknown.items()
                },
            }
            for name in val
        },
    }


def outputs(classifier: Classifier, images: Pixels) -> Outputs:
    """Logits and features of pictures, `(N, C)` and `(N, D)`."""
    names = ("logits", "features")
    parts = [
        classifier.run(np.ascontiguousarray(images[at : at + BATCH]), names) for at in range(0, len(images), BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def scores(found: Outputs, bank: npt.NDArray[np.float32], ks: list[int]) -> Iterator[tuple[str, Any]]:
    """Every score of pictures, by name."""
    for name, score in LOGIT_SCORES.items():
        yield name, score(found["logits"])
    for k in ks:
        yield f"nearest_{k}", nearest(found["features"], bank, k)


def joined(*sets: ImageSet) -> Pixels:
    """The pictures of several sets."""
    return np.concatenate([pictures.images for pictures in sets])


def plain_colours(count: int, size: int, random: np.random.Generator) -> Pixels:
    """Pictures of one colour each."""
    colours = random.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (count, size, size, 3)))


def first(values: Scores) -> int:
    """How many pictures were scored."""
    return len(next(iter(values.values())))


if __name__ == "__main__":
    sys.exit(main())
