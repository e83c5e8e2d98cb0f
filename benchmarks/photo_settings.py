"""Settings of the recipe `photos`, compared by cross-validation on the training images of a folder.

    python benchmarks/photo_settings.py [FOLDER] [--settings NAME,NAME] [--workers 8] [--seconds 300] [--weights PATH]

FOLDER has one folder of photographs per class; by default `trashnet` under THIRTYTWO_DATA. The test images that
`thirtytwo train` splits off are left out. The others are divided into folds, stratified by class; each setting is
trained on all folds but one and evaluated on that one, in one view. All settings have the same folds, so differences
between them are those of the same images. Writes `benchmarks/results/photo_settings.json` after each training, and
continues there after an interruption. On a GPU, several workers share it, since one alone does not use it to capacity.

For a machine where the packages with ImageNet weights cannot be installed, PATH is the folder that
`benchmarks/gpu.py --export-weights PATH` wrote.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.io import write_json

RESULTS = Path(__file__).parent / "results" / "photo_settings.json"
SIZE, EPOCHS, RATE = "data.image_size", "schedule.epochs", "transfer.rate"
HEAD, DECAY, NORMS = "transfer.head_until", "transfer.layer_decay", "transfer.batchnorm"
LITE2 = {"model.options.architecture": "tf_efficientnet_lite2"}
TRAINED: dict[str, Any] = {NORMS: "trained", DECAY: 1.0}
BASE: dict[str, Any] = {
    "data.keep_together": "copies",
    EPOCHS: 14,
    HEAD: 0.3571,
    "schedule.batch_size": 32,
    "schedule.accumulate": 1,
    "transfer.unfreeze": "all",
    "augment.erase": 0.0,
    "train.keep": "best",
    "train.patience": 3,
}
"""What `photos` was for 801 to 10,000 images when the settings were compared: nine epochs of all layers."""
LAST_OF_15: dict[str, Any] = {
    "transfer.unfreeze": 0.75,
    EPOCHS: 20,
    HEAD: 0.25,
    "augment.erase": 0.25,
    "train.keep": "last",
    "train.patience": 0,
}
FIRST_160: dict[str, Any] = {
    **LAST_OF_15,
    "schedule.batch_size": 16,
    "schedule.accumulate": 2,
    "schedule.resolution": [{"until": 0.6, "size": 160}],
}
THEN_192: dict[str, Any] = {
    **FIRST_160,
    EPOCHS: 23,
    HEAD: 0.2174,
    "schedule.resolution": [{"until": 0.6, "size": 160}, {"until": 1.0, "size": 192}],
}
THEN = "18 epochs of three quarters of the layers, random erasing, last epoch, 160 then 192 pixels"
FROM_128 = "22 epochs of three quarters of the layers, random erasing, last epoch, 128 then 192 pixels"
SIZES_128 = [{"until": 0.6, "size": 128}, {"until": 1.0, "size": 192}]
SLOWER: dict[str, Any] = {**THEN_192, EPOCHS: 27, HEAD: 0.1852, "schedule.resolution": SIZES_128, RATE: 0.7}
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "crop from 0.2": {"augment.crop": [0.2, 1.0]},
    "crop from 0.08": {"augment.crop": [0.08, 1.0]},
    "crop from 0.6": {"augment.crop": [0.6, 1.0]},
    "TrivialAugment": {"augment.policy": "trivialaugment"},
    "CutMix": {"augment.cutmix": 1.0, "augment.mix_share": 0.5},
    "MixUp": {"augment.mixup": 0.2},
    "random erasing": {"augment.erase": 0.25},
    "no color changes": {"augment.brightness": 0.0, "augment.contrast": 0.0, "augment.saturation": 0.0},
    "BatchNorm trained": {NORMS: "trained"},
    "no layer decay": {DECAY: 1.0},
    "BatchNorm trained, no layer decay": TRAINED,
    "rate 2": {RATE: 2.0},
    "rate 0.5": {RATE: 0.5},
    "BatchNorm trained, rate 2": {NORMS: "trained", RATE: 2.0},
    "no label smoothing": {"train.label_smoothing": 0.0},
    "dropout 0.3": {"model.options.drop_rate": 0.3, "model.options.drop_path_rate": 0.1},
    "last epoch": {"train.keep": "last", "train.patience": 0},
    "15 epochs of all layers": {EPOCHS: 20, HEAD: 0.25, "train.patience": 0},
    "4 epochs of all layers": {EPOCHS: 9, HEAD: 0.5556},
    "160 pixels": {SIZE: 160},
    "160 pixels, 18 epochs of all layers": {SIZE: 160, EPOCHS: 23, HEAD: 0.2174, "train.patience": 0},
    "288 pixels": {SIZE: 288},
    "Lite2, 160 pixels": {SIZE: 160, **LITE2},
    "Lite2, 224 pixels": LITE2,
    "three quarters of the layers": {"transfer.unfreeze": 0.75},
    "15 epochs of three quarters of the layers, random erasing, last epoch": LAST_OF_15,
    "15 epochs of three quarters of the layers, random erasing, last epoch, 160 pixels first": FIRST_160,
    THEN: THEN_192,
    f"{THEN}, no color changes": {
        **THEN_192,
        "augment.brightness": 0.0,
        "augment.contrast": 0.0,
        "augment.saturation": 0.0,
    },
    f"{THEN}, rate 0.7": {**THEN_192, RATE: 0.7},
    f"{THEN}, rate 1.4": {**THEN_192, RATE: 1.4},
    f"{THEN}, crop from 0.2": {**THEN_192, "augment.crop": [0.2, 1.0]},
    f"{THEN}, EMA 0.995": {**THEN_192, "train.ema": 0.995},
    f"{THEN}, float32": {**THEN_192, "train.precision": "float32"},
    f"{THEN}, all layers": {**THEN_192, "transfer.unfreeze": "all"},
    f"{THEN}, half of the layers": {**THEN_192, "transfer.unfreeze": 0.5},
    FROM_128: {**THEN_192, EPOCHS: 27, HEAD: 0.1852, "schedule.resolution": SIZES_128},
    f"{FROM_128}, rate 0.7": SLOWER,
    f"{FROM_128}, rate 0.5": SLOWER | {RATE: 0.5},
    f"{FROM_128}, rate 0.7, all layers": SLOWER | {"transfer.unfreeze": "all"},
    f"{FROM_128}, rate 0.7, crop from 0.2": SLOWER | {"augment.crop": [0.2, 1.0]},
    f"{FROM_128}, rate 0.7, EMA 0.99": SLOWER | {"train.ema": 0.99},
    f"{FROM_128}, rate 0.7, layer decay 0.8": SLOWER | {DECAY: 0.8},
    f"{FROM_128}, rate 0.7, weight decay 0.2": SLOWER | {"optimizer.weight_decay": 0.2},
    f"{FROM_128}, rate 0.7, 224 pixels last": SLOWER
    | {"schedule.resolution": [{"until": 0.7, "size": 128}, {"until": 1.0, "size": 224}]},
    f"{FROM_128}, rate 0.7, Lite2": SLOWER | LITE2,
    "crop from 0.2, BatchNorm trained, rate 2": {"augment.crop": [0.2, 1.0], NORMS: "trained", RATE: 2.0},
    "crop from 0.2, CutMix, BatchNorm trained": {
        "augment.crop": [0.2, 1.0],
        "augment.cutmix": 1.0,
        "augment.mix_share": 0.5,
        NORMS: "trained",
    },
    "TrivialAugment, BatchNorm trained, rate 2": {
        "augment.policy": "trivialaugment",
        NORMS: "trained",
        RATE: 2.0,
    },
}
"""Changes of `BASE`, by name."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--settings", help="names of some settings, separated by semicolons; all by default")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1, help="divisions into folds, each with its own seed")
    parser.add_argument("--limit", type=int, default=0, help="training images, as with --limit-train; 0: all")
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time")
    parser.add_argument("--seconds", type=float, default=1e9, help="no training is waited for after this time")
    parser.add_argument("--weights", type=Path, help="folder of exported weights")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes of every setting")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.folder is None:
        options.folder = Path(os.environ.get("THIRTYTWO_DATA", "")) / "trashnet"
    if not options.folder.is_dir():
        print("skipped: name a folder of photographs, or set THIRTYTWO_DATA to a folder with trashnet")
        return 0
    names = options.settings.split(";") if options.settings else list(SETTINGS)
    if unknown := [name for name in names if name not in SETTINGS]:
        print(f"unknown: {unknown}; known: {list(SETTINGS)}")
        return 2
    with tempfile.TemporaryDirectory() as place:
        run_all(options, names, Path(place))
    return 0


def run_all(options: argparse.Namespace, names: list[str], place: Path) -> None:
    """Train what is missing in the results, all settings on the first fold before the next."""
    until = time.monotonic() + options.seconds
    content = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    runs = content.setdefault("runs", [])
    tasks = []
    for repeat in range(options.repeats):
        folders = fold_folders(options.folder, options.folds, repeat, place)
        for fold, folder in enumerate(folders):
            for name in names:
                key = {"setting": name, "repeat": repeat, "fold": fold, "limit": options.limit}
                if all(any(run[part] != value for part, value in key.items()) for run in runs):
                    tasks.append((key, folder))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, context) as pool:
        waiting = {pool.submit(train, key, folder, options.weights, options.set): key for key, folder in tasks}
        try:
            for future in as_completed(waiting, max(0.1, until - time.monotonic())):
                if error := future.exception():
                    print(waiting[future], "failed:", error, flush=True)
                    continue
                runs.append(waiting[future] | future.result())
                print(runs[-1], flush=True)
                content |= about(options, runs)
                write_json(options.out, content)
        except TimeoutError:
            print("the time is used up", flush=True)
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def fold_folders(folder: Path, count: int, repeat: int, place: Path) -> list[Path]:
    """One folder for each fold, with `train` and `test` made of links to the images that are not for the final test."""
    from sklearn.model_selection import StratifiedKFold

    from thirtytwo.data.load import load_dataset

    data = load_dataset(str(folder), image_size=32).train
    assert data.files is not None
    found = []
    for fold, (_, held) in enumerate(
        StratifiedKFold(count, shuffle=True, random_state=repeat).split(data.labels, data.labels)
    ):
        target = place / f"{repeat}-{fold}"
        tested = np.isin(np.arange(len(data)), held)
        for position, file in enumerate(data.files):
            source = Path(file) if Path(file).is_absolute() else folder / file
            link = (
                target / ("test" if tested[position] else "train") / data.classes[data.labels[position]] / source.name
            )
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, link)
        found.append(target)
    return found


def train(key: dict[str, Any], folder: Path, weights: Path | None, changes: list[str]) -> dict[str, Any]:
    """Train one setting on one fold, as `thirtytwo train` does, and evaluate it on the images held out."""
    import torch

    from thirtytwo.config.resolve import parse_overrides
    from thirtytwo.evaluation.scoring import Scorer
    from thirtytwo.rundir import RunDir
    from thirtytwo.training.fit import fit
    from thirtytwo.training.hardware import describe_machine
    from thirtytwo.workflows.prepare import prepare, write_plan

    if torch.cuda.is_available():
        torch.set_num_threads(1)
    settings = {"seed": key["repeat"], "data.limit_train": key["limit"], **BASE, **SETTINGS[key["setting"]]}
    if weights is not None:
        architecture = settings.get("model.options.architecture", "tf_efficientnet_lite0")
        settings["transfer.pretrained"] = str(weights / f"{architecture.rpartition('_')[2]}.safetensors")
    plan = prepare(str(folder), "photos", settings | parse_overrides(changes), "auto", None)
    with tempfile.TemporaryDirectory() as place:
        directory = RunDir.create(Path(place) / "run")
        write_plan(plan, directory)
        fitted = fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, show=False)
        rows = directory.history.read_text().splitlines()
    machine = describe_machine(plan.hardware.device)
    scorer = Scorer(fitted.net, fitted.mean, fitted.std, plan.hardware.device)
    right = scorer.logits(plan.parts.test.images).argmax(1) == plan.parts.test.labels
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    return {
        "right": int(right.sum()),
        "n": len(right),
        "n_train": len(plan.parts.train),
        "wrong": np.flatnonzero(~right).tolist(),
        "epochs": fitted.epochs,
        "seconds": round(fitted.seconds, 1),
        "train_accuracy": round(float(last["train_accuracy"]), 4),
        "val_accuracy": round(float(last["val_accuracy"]), 4),
        "hardware": machine["gpu"] if machine["gpu"] else "{cores} cores of {cpu}".format(**machine),
    }


def about(options: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What was done where, and the accuracy of each setting over all images held out, best first."""
    names = {(run["setting"], run["limit"]) for run in runs}
    table = []
    for name, limit in names:
        own = [run for run in runs if run["setting"] == name and run["limit"] == limit]
        right, n = sum(run["right"] for run in own), sum(run["n"] for run in own)
        row = {"setting": name, "limit": limit, "trainings": len(own), "accuracy": round(right / n, 4), "n": n}
        table.append(row | {"hardware": sorted({run["hardware"] for run in own})})
    return {
        "what": __doc__.splitlines()[0],
        "data": options.folder.resolve().name,
        "date": datetime.now(UTC).date().isoformat(),
        "base": BASE,
        "settings": SETTINGS,
        "table": sorted(table, key=lambda row: -row["accuracy"]),
    }


if __name__ == "__main__":
    sys.exit(main())
