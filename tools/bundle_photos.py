"""Make the bundled models of CIFAR that know photographs too, from weights that benchmarks/gpu.py brought back.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python tools/bundle_photos.py cifar10|cifar100 --stamps stamps/usr/share/tuxpaint/stamps --run RUN

Joins the fine-tuned network of `benchmarks/weights/` and EfficientNet-Lite0 with ImageNet's packaged weights
(`models.zero_shot`), by the map from ImageNet's classes to CIFAR's in `tools/imagenet_labels.json`. Calibrates on the
images that were held out while it was trained, scores test, and writes the run directory RUN and, with weights in int8,
the bundled file with card and report. The thresholds for unknown images are set for false alarms of 5 %: of blurred
images on those held out, of sharp ones on Tux Paint's cut-out photographs that `benchmarks/photos.py` lists.

Without --run, only the OOD score of the bundled file is made anew. Predictions, and which blurred images are known,
must stay the same, so that the metrics of its card on CIFAR's test still apply.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle import REPORTS, FileScorer, put
from safetensors.torch import load_file

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.data.run_data import RunData, split_record, unused_of
from thirtytwo.data.split import Parts
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.evaluation.ood import FALSE_ALARM_RATE, SCORES, threshold_at
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.quantize import shrink_onnx
from thirtytwo.images.decode import load_image
from thirtytwo.images.pixels import Pixels, resize
from thirtytwo.inference.library import BUNDLED
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.inference.session import open_session
from thirtytwo.io import write_bytes, write_text
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
sys.path.insert(0, str(ROOT / "benchmarks"))

import photos  # noqa: E402

STAMPS = {"cifar10": photos.CIFAR10, "cifar100": photos.CIFAR100}
SIZE = 160  # pixels, of a training whose recipe was not kept
FINETUNED, GENERAL = "tf_efficientnet_lite2", "tf_efficientnet_lite0"
MEAN = STD = (0.5, 0.5, 0.5)
LICENSE = (
    "- Licensed as thirtytwo (MIT). It contains weights derived from EfficientNet-Lite0 and EfficientNet-Lite2 (Apache "
    "License 2.0, see `imagenet.LICENSE`). Check the licence of the data as well."
)
PLANNED = 16
"""Epochs of a training that was cut off."""
CUT_OFF = "Training was cut off after {} of {} epochs; the weights are the moving average at that time.\n"
CHECKED = 100  # held-out images on which a file with another OOD score is compared
SCORE = re.compile(
    r"((?:called|marked) unknown if its score is below )[-−\d.]+\.( The score \(network\): )"
    r"[^,]+, computed by the network, "
)
OPTIONS = re.compile(r"^known_(?:blurred|sharp) = .*\n", re.MULTILINE)
SIZE_OPTION = re.compile(r"^size = \d+\n", re.MULTILINE)
SHOWN = 500  # training images at full size, for the samples of the report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["cifar10", "cifar100"])
    parser.add_argument("--stamps", type=Path, required=True, help="Tux Paint's folder of stamps")
    parser.add_argument("--run", type=Path, help="the run directory that is written; none: only the OOD score is new")
    parser.add_argument(
        "--cache", type=Path, help="folder that keeps features of the images that thresholds are set on"
    )
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    options = parser.parse_args()
    root = Path(options.data_root) if options.data_root else None
    json_result = json.loads((ROOT / "benchmarks" / "results" / "gpu" / f"photos-{options.name}.json").read_text())
    result = json_result["results"]
    dataset = load_dataset(options.name, data_root=root)
    parts = divided(dataset, result["val_rows"])
    size = size_of(result)
    val = enlarged(parts.val, size)
    planned = result["recipe"]["schedule"]["epochs"] if "recipe" in result else PLANNED
    net = network(options.name, recipe_of(options.name, dataset, planned, size))
    scorer = Scorer(net, MEAN, STD, torch.device("cpu")) if options.run else bundled_scorer(options.name)
    sets = {"known_blurred": val.images, "known_sharp": stamp_images(options.name, options.stamps, size)}
    features = cached_features(scorer, sets, options.name, options.cache)
    limits = thresholds(net, features)
    if options.run is None:
        limits["known_blurred"] = same_threshold(options.name, net, val, features["known_blurred"])
    recipe = recipe_of(options.name, dataset, planned, size, limits)
    net = network(options.name, recipe)
    if options.run is None:
        rescore(options.name, net, val)
        return 0
    bundle(options.name, options.run, root, dataset, parts, val, recipe, net, json_result)
    return 0


def bundle(
    name: str,
    path: Path,
    root: Path | None,
    dataset: DataSet,
    parts: Parts,
    val: ImageSet,
    recipe: Recipe,
    net: ZeroShot,
    json_result: dict[str, Any],
) -> None:
    """Write the run directory `path` and the bundled file; `val` is the enlarged validation of `parts`."""
    result, planned = json_result["results"], recipe.schedule.epochs
    size = val.images.shape[1]
    large = Parts(enlarged(parts.train.take(np.arange(SHOWN)), size), val, enlarged(parts.test, size))
    hardware = choose_hardware(recipe.train, "cpu")
    started = datetime.now(UTC)
    about = record(dataset, name, large, recipe.name, {}, hardware, started)
    trained = f"thirtytwo train {name} --recipe transfer-lite2 --set schedule.epochs={planned}"
    if size != SIZE:
        trained += f" --set model.options.input_size={size}"
    about |= {
        "command": f"{trained} --run runs/{name}-lite2",
        "joined": f"python tools/bundle_photos.py {name} --stamps STAMPS",
        "hardware": json_result["machine"],
    }
    about["data"] |= {"train": len(parts.train)}
    split = split_record(parts, recipe, unused_of(dataset, parts), {"hashes": []})
    whole = replace(dataset, train=large.train, test=large.test)
    plan = Plan(name, whole, large, recipe, hardware, None, about, split, root)
    run = RunDir.open(path) if (path / "recipe.toml").is_file() else RunDir.create(path)
    if not run.report.is_file():
        write_plan(plan, run)
        fitted = Fitted(net, MEAN, STD, epochs_of(result), seconds_of(result))
        with UsageMeter() as meter:
            finish(plan, fitted, run, lambda text: print(text, flush=True), meter)
    environment = run.read_json(run.environment)
    trained_for = {"seconds": {**environment["seconds"], "train": seconds_of(result)}, "epochs": epochs_of(result)}
    run.write_json(run.environment, environment | {"hardware": json_result["machine"]} | trained_for)
    put(name, run, "int8", "squash", root, RunData(whole, large), net=net, license=LICENSE)
    if epochs_of(result) < planned:
        card = BUNDLED / f"{name}.md"
        write_text(card, f"{card.read_text(encoding='utf-8')}{CUT_OFF.format(epochs_of(result), planned)}")
    print(BUNDLED / f"{name}.onnx")


def thresholds(net: ZeroShot, features: dict[str, np.ndarray]) -> dict[str, float]:
    """The scores below which `FALSE_ALARM_RATE` of images fall, by option of the network and features `(N, D)`."""
    found = {}
    for option, values in features.items():
        with torch.inference_mode():
            scores = net.known_score(torch.from_numpy(values)).double().numpy()
        found[option] = round(threshold_at(scores, FALSE_ALARM_RATE), 4)
    print(found, flush=True)
    return found


def cached_features(
    scorer: Scorer | FileScorer, sets: dict[str, Pixels], name: str, cache: Path | None
) -> dict[str, np.ndarray]:
    """Features `(N, D)` of each set of images, kept in the folder `cache` for these weights."""
    found, weights = {}, digest(weights_path(name).read_bytes())[:16]
    for key, images in sets.items():
        path = cache and cache / f"{name}-{'network' if isinstance(scorer, Scorer) else 'file'}-{weights}-{key}.npy"
        found[key] = np.load(path) if path and path.is_file() else scorer.outputs(images)[1]
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, found[key])
    return found


def weights_path(name: str) -> Path:
    """The fine-tuned weights."""
    return ROOT / "benchmarks" / "weights" / f"photos-{name}.safetensors"


def stamp_images(name: str, stamps: Path, size: int) -> Pixels:
    """Cut-out photographs of the classes, uint8 `(N, size, size, 3)`."""
    return np.stack([load_image(file, size, "squash").pixels for _, file in photos.labeled(stamps, STAMPS[name])])


def bundled_scorer(name: str) -> FileScorer:
    """The bundled file."""
    return FileScorer(open_session(BUNDLED / f"{name}.onnx")[0])


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def same_threshold(name: str, net: ZeroShot, val: ImageSet, features: np.ndarray) -> float:
    """The score of the network at the bundled file's threshold, for blurred images: one score rises with the other."""
    session, info = open_session(BUNDLED / f"{name}.onnx")
    with torch.inference_mode():
        new = net.known_score(torch.from_numpy(features)).double().numpy()
    near = np.argsort(np.abs(new - threshold_at(new, FALSE_ALARM_RATE)))[:CHECKED]
    old = session.run(["known_score"], {"images": val.images[near]})[0]
    order = np.argsort(old)
    if not old.min() < info.unknown_threshold < old.max():
        raise SystemExit("the bundled file's threshold is far from that of these weights: give --run")
    return round(float(np.interp(info.unknown_threshold, old[order], new[near][order])), 6)


def rescore(name: str, net: ZeroShot, val: ImageSet) -> None:
    """Write the bundled file again with the network's present OOD score, and what card and report state of it."""
    path = BUNDLED / f"{name}.onnx"
    session, before = open_session(path)
    info = before.model_copy(update={"unknown_threshold": 0.0, "unknown_score": "network"})
    with tempfile.TemporaryDirectory() as place:
        whole, small = Path(place) / "whole.onnx", Path(place) / "small.onnx"
        export_onnx(net, info, whole)
        shrink_onnx(whole, small, "int8")
        check_unchanged(session, before, open_session(small)[0], val.images[:CHECKED])
        content = small.read_bytes()
    write_bytes(path, content)
    for page in (BUNDLED / f"{name}.md", REPORTS / f"{name}.html"):
        text = page.read_text(encoding="utf-8")
        text = SCORE.sub(lambda found: f"{found[1]}0.{found[2]}{SCORES['network']['what']}, ", text)
        text = OPTIONS.sub("", text)
        text = SIZE_OPTION.sub(lambda found: f"{found[0]}{options_text(net)}", text)
        write_text(page, re.sub(r"SHA-256 `\w+`", f"SHA-256 `{digest(content)}`", text))
    print(path)


def options_text(net: ZeroShot) -> str:
    """The thresholds as lines of a recipe."""
    limits = net.settings.model_dump(include={"known_blurred", "known_sharp"})
    return "".join(f"{key} = {value}\n" for key, value in limits.items())


def check_unchanged(old: Any, info: ModelInfo, new: Any, images: Pixels) -> None:
    """Check on blurred images that predictions, and which images are known, are those of the file before.

    Raises:
        SystemExit: they are not.
    """
    names = ["probabilities", "known_score"]
    before, after = [session.run(names, {"images": images}) for session in (old, new)]
    np.testing.assert_allclose(after[0], before[0], atol=1e-3)
    changed = (before[1] >= (info.unknown_threshold or 0.0)) != (after[1] >= 0)
    if changed.any():
        raise SystemExit(f"{changed.sum()} of {len(images)} held-out images are known to one file only: give --run")


def divided(dataset: DataSet, held: list[int]) -> Parts:
    """Train, validation and test as they were on the GPU: `held` are rows of train."""
    assert dataset.test is not None
    out = np.isin(dataset.train.rows, held)
    return Parts(dataset.train.take(np.flatnonzero(~out)), dataset.train.take(np.flatnonzero(out)), dataset.test)


def enlarged(images: ImageSet | None, size: int) -> ImageSet:
    """The images as the model file is given them."""
    assert images is not None
    return replace(images, images=np.stack([resize(image, size, "squash") for image in images.images]))


def size_of(result: dict[str, Any]) -> int:
    """Side of the images of the training, in pixels."""
    return int(result["recipe"]["model"]["options"]["input_size"]) if "recipe" in result else SIZE


def epochs_of(result: dict[str, Any]) -> int:
    return len(result["history"]) - 1 if "history" in result else len(result["log"])


def seconds_of(result: dict[str, Any]) -> float:
    """Seconds of training; where the clock cut it off, those of its complete epochs."""
    return float(result.get("seconds") or sum(float(line.split()[-2]) for line in result["log"]))


def recipe_of(name: str, dataset: DataSet, epochs: int, size: int, limits: dict[str, float] | None = None) -> Recipe:
    """What was trained, and what it was joined with; `limits` are those of `thresholds`."""
    labels = json.loads((Path(__file__).parent / "imagenet_labels.json").read_text())[name]
    network = {"name": "timm", "options": {"input_size": size, "pretrained": True, "small_images": "upsample"}}
    joined = {
        "finetuned": {**network, "options": {**network["options"], "architecture": FINETUNED}},  # type: ignore[dict-item]
        "general": {**network, "options": {**network["options"], "architecture": GENERAL}},  # type: ignore[dict-item]
        "labels": [labels[label] for label in dataset.classes],
        "size": size,
        **(limits or {}),
    }
    values = read_recipe_values("transfer-lite2")
    changes = {"name": "transfer-lite2, joined with ImageNet's classes", "model": {"name": NAME, "options": joined}}
    changes |= {"data.image_size": size, "data.resize": "squash", "evaluate.tta": False, "train.precision": "float32"}
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
    weights = load_file(weights_path(name))
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
