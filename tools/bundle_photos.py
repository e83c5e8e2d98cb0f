"""Make the bundled models of CIFAR that know photographs too, from weights that benchmarks/gpu.py brought back.

    python tools/bundle_photos.py cifar10|cifar100 --run RUN [--data-root DIR]

Joins the fine-tuned network of `benchmarks/weights/` and EfficientNet-Lite0 with ImageNet's packaged weights
(`models.zero_shot`), by the map from ImageNet's classes to CIFAR's in `tools/imagenet_labels.json`. Calibrates on the
images that were held out while it was trained, scores test, and writes the run directory RUN and, with weights in int8,
the bundled file with card and report.
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from bundle import BUNDLED, put
from safetensors.torch import load_file

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.data.run_data import RunData, split_record, unused_of
from thirtytwo.data.split import Parts
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.images.decode import resize
from thirtytwo.io import write_text
from thirtytwo.models import MODELS
from thirtytwo.models.packaged import packaged_weights
from thirtytwo.models.zero_shot import NAME, ZeroShot
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import Fitted
from thirtytwo.training.hardware import UsageMeter, choose_hardware
from thirtytwo.workflows.finish import finish
from thirtytwo.workflows.prepare import Plan, write_plan
from thirtytwo.workflows.records import record

ROOT = Path(__file__).parents[1]
SIZE = 160
FINETUNED, GENERAL = "tf_efficientnet_lite2", "tf_efficientnet_lite0"
MEAN = STD = (0.5, 0.5, 0.5)
LICENSE = (
    "- Licensed as thirtytwo (MIT). It contains weights derived from EfficientNet-Lite0 and EfficientNet-Lite2 (Apache "
    "License 2.0, see `imagenet.LICENSE`). Check the licence of the data as well."
)
PLANNED = 16
"""Epochs of a training that was cut off."""
CUT_OFF = "Training was cut off after {} of {} epochs; the weights are the moving average at that time.\n"
SHOWN = 500  # training images at SIZE pixels, for the samples of the report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["cifar10", "cifar100"])
    parser.add_argument("--run", type=Path, required=True, help="the run directory that is written")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    options = parser.parse_args()
    root = Path(options.data_root) if options.data_root else None
    json_result = json.loads((ROOT / "benchmarks" / "results" / "gpu" / f"photos-{options.name}.json").read_text())
    result = json_result["results"]
    dataset = load_dataset(options.name, data_root=root)
    parts = divided(dataset, result["val_rows"])
    large = Parts(enlarged(parts.train.take(np.arange(SHOWN))), enlarged(parts.val), enlarged(parts.test))
    planned = result["recipe"]["schedule"]["epochs"] if "recipe" in result else PLANNED
    recipe = recipe_of(options.name, dataset, planned)
    net = network(options.name, recipe)
    hardware = choose_hardware(recipe.train, "cpu")
    started = datetime.now(UTC)
    about = record(dataset, options.name, large, recipe.name, {}, hardware, started)
    trained = f"thirtytwo train {options.name} --recipe transfer-lite2 --set schedule.epochs={planned}"
    about |= {
        "command": f"{trained} --run runs/{options.name}-lite2",
        "joined": f"python tools/bundle_photos.py {options.name}",
        "hardware": json_result["machine"],
    }
    about["data"] |= {"train": len(parts.train)}
    split = split_record(parts, recipe, unused_of(dataset, parts), {"hashes": []})
    whole = replace(dataset, train=large.train, test=large.test)
    plan = Plan(options.name, whole, large, recipe, hardware, None, about, split, root)
    run = RunDir.open(options.run) if (options.run / "recipe.toml").is_file() else RunDir.create(options.run)
    if not run.report.is_file():
        write_plan(plan, run)
        fitted = Fitted(net, MEAN, STD, epochs_of(result), seconds_of(result))
        with UsageMeter() as meter:
            finish(plan, fitted, run, lambda text: print(text, flush=True), meter)
    environment = run.read_json(run.environment)
    trained_for = {"seconds": {**environment["seconds"], "train": seconds_of(result)}, "epochs": epochs_of(result)}
    run.write_json(run.environment, environment | {"hardware": json_result["machine"]} | trained_for)
    put(options.name, run, "int8", "squash", root, RunData(whole, large), net=net, license=LICENSE)
    if epochs_of(result) < planned:
        path = BUNDLED / f"{options.name}.md"
        write_text(path, f"{path.read_text(encoding='utf-8')}{CUT_OFF.format(epochs_of(result), planned)}")
    print(BUNDLED / f"{options.name}.onnx")
    return 0


def divided(dataset: DataSet, held: list[int]) -> Parts:
    """Train, validation and test as they were on the GPU: `held` are rows of train."""
    assert dataset.test is not None
    out = np.isin(dataset.train.rows, held)
    return Parts(dataset.train.take(np.flatnonzero(~out)), dataset.train.take(np.flatnonzero(out)), dataset.test)


def enlarged(images: ImageSet | None) -> ImageSet:
    """The images as the model file is given them."""
    assert images is not None
    return replace(images, images=np.stack([resize(image, SIZE, "squash") for image in images.images]))


def epochs_of(result: dict[str, Any]) -> int:
    return len(result["history"]) - 1 if "history" in result else len(result["log"])


def seconds_of(result: dict[str, Any]) -> float:
    """Seconds of training; where the clock cut it off, those of its complete epochs."""
    return float(result.get("seconds") or sum(float(line.split()[-2]) for line in result["log"]))


def recipe_of(name: str, dataset: DataSet, epochs: int) -> Recipe:
    """What was trained, and what it was joined with."""
    labels = json.loads((Path(__file__).parent / "imagenet_labels.json").read_text())[name]
    network = {"name": "timm", "options": {"input_size": SIZE, "pretrained": True, "small_images": "upsample"}}
    joined = {
        "finetuned": {**network, "options": {**network["options"], "architecture": FINETUNED}},  # type: ignore[dict-item]
        "general": {**network, "options": {**network["options"], "architecture": GENERAL}},  # type: ignore[dict-item]
        "labels": [labels[label] for label in dataset.classes],
        "size": SIZE,
    }
    values = read_recipe_values("transfer-lite2")
    changes = {"name": "transfer-lite2, joined with ImageNet's classes", "model": {"name": NAME, "options": joined}}
    changes |= {"data.image_size": SIZE, "data.resize": "squash", "evaluate.tta": False, "train.precision": "float32"}
    changes |= {
        "schedule.epochs": epochs,
        "transfer.pretrained": "",
        "train.compile": "off",
        "train.memory_format": "channels_last",
    }
    return resolve_recipe(values, changes, classes=len(dataset.classes), rows=47_500)


def network(name: str, recipe: Recipe) -> ZeroShot:
    """The joined network with its weights."""
    net = MODELS.get(NAME)(len(recipe.model.options["labels"]), recipe.model.options)
    assert isinstance(net, ZeroShot)
    weights = load_file(ROOT / "benchmarks" / "weights" / f"photos-{name}.safetensors")
    net.finetuned.load_state_dict(weights)
    general = packaged_weights(GENERAL)
    renamed = {
        f"head.{key.removeprefix('classifier.')}" if key.startswith("classifier.") else f"body.{key}": value
        for key, value in general.items()
    }
    net.general.load_state_dict(renamed)
    return net.eval()


if __name__ == "__main__":
    sys.exit(main())
