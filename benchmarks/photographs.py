"""Training on photographs with the recipe that the data chooses: accuracy, seconds, memory, and throughput.

    python benchmarks/photographs.py [FOLDER] [--seeds 0,1,2] [--parts full,limit,two,throughput] [--untimed]

FOLDER has one folder of photographs per class; by default `trashnet` under THIRTYTWO_DATA. Trains with the command
`thirtytwo train` and no recipe: on all of it with each seed (`full`), on 300 images (`limit`), and on 120 photographs
of each of two classes (`two`). Accuracy is that of one view on the test images that are split off; seconds are those
from start to report and memory the peak of the process, both from `environment.json`. `throughput` compares training
steps with a plain PyTorch script that reads JPEG files with a DataLoader and torchvision's transforms: same network,
trained layers, images of a step, optimizer and augmentation, in alternation. Writes
`benchmarks/results/photographs.json` after each run, and continues there after an interruption.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from thirtytwo.augment.augmenter import ERASE_AREA, ERASE_ASPECT
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count
from thirtytwo.models.base import build_network
from thirtytwo.models.folding import folded_norms
from thirtytwo.models.packaged import packaged_weights
from thirtytwo.process import own_process
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import build_training
from thirtytwo.training.hardware import choose_hardware, describe_machine
from thirtytwo.training.transfer import resolve_transfer, unfrozen_layers
from thirtytwo.workflows.prepare import CROP_MARGIN

RESULTS = Path(__file__).parent / "results" / "photographs.json"
LIMIT = 300
TWO, PER_CLASS = 2, 120
BATCH, STEPS, WARM_UP, REPEATS = 32, 20, 3, 5
"""Images of an optimizer step, and steps of a round."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Training on photographs: accuracy, seconds, memory, throughput.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--parts", default="full,limit,two,throughput", help="separated by commas")
    parser.add_argument("--untimed", action="store_true", help="omit the seconds, on a machine that is busy")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.folder is None:
        options.folder = Path(os.environ.get("THIRTYTWO_DATA", "")) / "trashnet"
    if not options.folder.is_dir():
        print("skipped: name a folder of photographs, or set THIRTYTWO_DATA to a folder with trashnet")
        return 0
    content: dict[str, Any] = {}
    if options.out.is_file():
        content = json.loads(options.out.read_text(encoding="utf-8"))
    content |= {"what": __doc__.splitlines()[0], "data": options.folder.resolve().name}
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for part in options.parts.split(","):
        if part == "throughput":
            content[part] = throughput(options.folder) | where_and_when()
            write_json(options.out, content)
            continue
        runs = content.setdefault(part, {}).setdefault("runs", [])
        for seed in seeds:
            if all(run["seed"] != seed for run in runs):
                runs.append(train_once(options.folder, part, seed, timed=not options.untimed))
                content[part] |= summary(runs) | where_and_when()
                write_json(options.out, content)
    return 0


def where_and_when() -> dict[str, Any]:
    """The machine and the date of a part, since parts may be measured on several machines."""
    return {"hardware": describe_machine(torch.device("cpu")), "date": datetime.now(UTC).date().isoformat()}


def train_once(folder: Path, part: str, seed: int, *, timed: bool) -> dict[str, Any]:
    """Train in a process of its own, as a user does, and read the figures from the run directory."""
    with tempfile.TemporaryDirectory() as place:
        data = two_classes(folder, Path(place) / "two") if part == "two" else folder
        path = Path(place) / "run"
        command = [sys.executable, "-m", "thirtytwo", "train", str(data), "--run", str(path), "--seed", str(seed)]
        command += ["--limit-train", str(LIMIT)] if part == "limit" else []
        environment = os.environ | {"THIRTYTWO_CACHE": str(Path(place) / "cache")}  # decoding counts
        started = time.perf_counter()
        subprocess.run(command, check=True, env=environment)
        wall = time.perf_counter() - started
        run = RunDir(path)
        metrics, about = run.read_json(run.metrics), run.read_json(run.environment)
    return {
        "seed": seed,
        "n_train": about["data"]["train"],
        "n_test": metrics["n"],
        "recipe": next(choice["value"] for choice in about["choices"] if choice["what"] == "recipe"),
        "accuracy": metrics["accuracy"],
        "accuracy_tta": metrics["accuracy_tta"],
        "macro_recall": metrics["macro_recall"],
        "ece": metrics["ece"],
        "epochs": about["epochs"],
        "seconds": about["seconds"] | {"wall": round(wall, 1)} if timed else None,
        "peak_memory_mb": about["peak_memory_mb"],
    }


def two_classes(folder: Path, into: Path) -> Path:
    """The first photographs of the first two classes, copied."""
    for name in sorted(entry.name for entry in folder.iterdir() if entry.is_dir())[:TWO]:
        (into / name).mkdir(parents=True)
        for file in sorted((folder / name).iterdir())[:PER_CLASS]:
            shutil.copy(file, into / name / file.name)
    return into


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and range over seeds; seconds are those of the timed runs."""
    accuracies = [run["accuracy"]["value"] for run in runs]
    timed = [run["seconds"] for run in runs if run["seconds"]]
    return {
        "n": len(runs),
        "accuracy": {"mean": statistics.mean(accuracies), "range": [min(accuracies), max(accuracies)]},
        "seconds": {
            key: round(statistics.mean(seconds[key] for seconds in timed), 1)
            for key in (("train", "total", "wall") if timed else ())
        },
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
    }


class Photographs(Dataset[tuple[torch.Tensor, int]]):
    """JPEG files with torchvision's transforms: what a plain script does."""

    def __init__(self, files: list[tuple[Path, int]], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self._files, self._transform = files, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file, label = self._files[index]
        with Image.open(file) as image:
            return self._transform(image.convert("RGB")), label


def throughput(folder: Path) -> dict[str, Any]:
    """Images a second of both, in alternation; the median over `REPEATS` rounds of `STEPS` steps.

    Each side runs in a process of its own, so that memory settings of one do not change the other.
    """
    sides = {name: Side(name, folder) for name in ("thirtytwo", "plain")}
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(REPEATS):
        for name in sides if number % 2 == 0 else reversed(sides):
            rounds[name].append(BATCH * STEPS / sides[name].seconds())
    for side in sides.values():
        side.stop()
    medians = {name: round(statistics.median(values), 2) for name, values in rounds.items()}
    return {
        "images_per_second": medians,
        "rounds": {name: [round(value, 2) for value in values] for name, values in rounds.items()},
        "ratio": round(medians["thirtytwo"] / medians["plain"], 3),
        "batch_size": BATCH,
        "steps": STEPS,
        "workers": cpu_count(),
    }


class Side:
    """A process that runs training steps on demand."""

    def __init__(self, name: str, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=run_side, args=(name, folder, other))
        self._process.start()

    def seconds(self) -> float:
        """Run a round, and return the seconds of its steps without those to warm up."""
        self._pipe.send("go")
        return float(self._pipe.recv())

    def stop(self) -> None:
        self._pipe.send("stop")
        self._process.join()


def run_side(name: str, folder: Path, pipe: Connection) -> None:
    """Answer each `go` with the seconds of `STEPS` steps."""
    with own_process() if name == "thirtytwo" else nullcontext():  # with the command line's allocator setting
        steps = {"thirtytwo": own_steps, "plain": plain_steps}[name](folder)
        while pipe.recv() == "go":
            for _ in range(WARM_UP):
                next(steps)
            start = time.perf_counter()
            for _ in range(STEPS):
                next(steps)
            pipe.send(time.perf_counter() - start)


def own_steps(folder: Path) -> Iterator[None]:
    """Optimizer steps of the recipe's second stage, which accumulate its batches, without Lightning's loop."""
    values = read_recipe_values("photos")
    size = int(values["data"]["image_size"])
    data = load_dataset(str(folder), image_size=size, large=round(CROP_MARGIN * size))
    overrides = {"transfer.head_until": 0.0, "train.ema": 0.0, "schedule.resolution": []}  # all at full size
    recipe = resolve_transfer(resolve_recipe(values, overrides, classes=len(data.classes), rows=len(data.train)))
    accumulate = recipe.schedule.accumulate
    assert recipe.schedule.batch_size * accumulate == BATCH
    loop, batches, _, _ = build_training(recipe, data.train, choose_hardware(recipe.train, "cpu"))
    loop.set_trainable(0)
    optimizer = loop.configure_optimizers()["optimizer"]
    with folded_norms(loop.net, size):
        while True:
            for index, batch in enumerate(batches):
                loop.reset_step_metrics()
                (loop.training_step(batch, index)["loss"] / accumulate).backward()
                if (index + 1) % accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                    yield
            optimizer.zero_grad()
            batches.epoch += 1


def plain_steps(folder: Path) -> Iterator[None]:
    """The same steps as a plain script: DataLoader with workers, torchvision's transforms, timm's network."""
    settings = read_recipe_values("photos")
    augment, size = settings["augment"], int(settings["data"]["image_size"])
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=tuple(augment["crop"])),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(augment["brightness"], augment["contrast"], augment["saturation"]),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
            v2.RandomErasing(augment["erase"], ERASE_AREA, ERASE_ASPECT),
        ]
    )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files = [(file, label) for label, name in enumerate(names) for file in sorted((folder / name).iterdir())]
    loader = DataLoader(
        Photographs(files, transform),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=cpu_count(),
        persistent_workers=True,
    )
    architecture = settings["model"]["options"]["architecture"]
    net = timm.create_model(architecture, num_classes=len(names))
    weights = {key: value for key, value in packaged_weights(architecture).items() if "classifier" not in key}
    net.load_state_dict(weights, strict=False)
    net = net.to(memory_format=torch.channels_last).train()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    frozen = frozen_parameters()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in frozen)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.05)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            loss(net(images.contiguous(memory_format=torch.channels_last)), labels).backward()
            optimizer.step()
            yield


def frozen_parameters() -> set[str]:
    """Names in timm's network of the parameters that the recipe never trains."""
    recipe = resolve_recipe(read_recipe_values("photos"), {}, classes=10, rows=1000)
    net = build_network(recipe, 10)
    layers = net.layers()
    trained = unfrozen_layers(net, recipe.transfer)
    return {name.removeprefix("body.") for names in layers[: len(layers) - len(trained)] for name in names}


if __name__ == "__main__":
    sys.exit(main())
