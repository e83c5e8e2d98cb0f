"""Resize rules for photographs: crop, pad or squash, on cut-out photographs of CIFAR's classes.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python benchmarks/photos.py stamps/usr/share/tuxpaint/stamps --cifar10 MODEL --cifar100 MODEL

Tux Paint's stamps are cut-out photographs under free licences, of many shapes and sizes; those that show one of CIFAR's
classes are listed below. The accuracy of each model and rule is written to `benchmarks/results/photos.json`, together
with the accuracy of area averaging instead of the bicubic, antialiased resize that thirtytwo uses.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thirtytwo.evaluation.metrics import wilson
from thirtytwo.images.decode import decode, load_image
from thirtytwo.images.pixels import RESIZE_RULES, Pixels, resize
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import find_model
from thirtytwo.io import write_json

RESULTS = Path(__file__).parent / "results" / "photos.json"
CIFAR10 = {
    "airplane": "vehicles/flight/planes/747 military/vehicles/f22_raptor",
    "automobile": "vehicles/auto/beetle vehicles/auto/sportscar2 vehicles/auto/sedan vehicles/emergency/sedan_police",
    "bird": """{birds}/silver-gull {birds}/nandou {birds}/albino_peahen {birds}/blackbird {birds}/crow
        {birds}/rainbow-lorikeet {birds}/cuckoo {birds}/helmeted_guineafowl {birds}/vulture {birds}/hen {birds}/pigeon
        {birds}/pink_flamingo {birds}/chicken_profile {birds}/quetzal {birds}/peacock {birds}/ostrich {birds}/rooster
        {birds}/owl {birds}/heron_greatblue_flying {birds}/lark {birds}/drake {birds}/magpie {birds}/tucan
        {birds}/adelaide-rosella {birds}/duck {birds}/seagull {birds}/gander {birds}/turkey {birds}/heron_greatblue
        {birds}/pelican {birds}/guineafowl {birds}/crowned_crane""",
    "deer": "{mammals}/deer/wapiti {mammals}/deer/doe {mammals}/deer/deer",
    "dog": "{mammals}/dogs/dog",
    "frog": "animals/amphibians/frog animals/amphibians/frog-1",
    "horse": "{mammals}/equines/horse",
    "ship": "vehicles/ship/chineseJunk",
    "truck": """vehicles/garbagetruck vehicles/emergency/firetruck vehicles/construction/dumper
        vehicles/auto/truck""",
}
CIFAR100 = {
    "apple": """{fruit}/apple_green {fruit}/apple_granny_smith {fruit}/apple_red {fruit}/apple_fuji
        {fruit}/apple_sierra_beauty""",
    "aquarium_fish": """{fish}/clownfish {fish}/butterflyfish {fish}/lionfish {fish}/moonwrasse
        {fish}/stripedfish""",
    "bear": "{mammals}/bears/bear {mammals}/bears/european-bear",
    "beaver": "{mammals}/rodents/beaver",
    "bee": "animals/insects/bee",
    "bus": "vehicles/masstransit/green_korean_bus",
    "camel": "{mammals}/camel/camel {mammals}/camel/dromedary",
    "cattle": "{mammals}/bovines/cow {mammals}/bovines/cow_white {mammals}/bovines/bull {mammals}/bovines/zebu",
    "chimpanzee": "{mammals}/apes/chimp",
    "cup": "household/dishes/mug",
    "dolphin": "{mammals}/aquatic/dolphin",
    "elephant": "{mammals}/elephant",
    "fox": "{mammals}/dogs/fox",
    "kangaroo": "animals/marsupials/kangaroo",
    "lion": "{mammals}/cats/lion {mammals}/cats/lion-2",
    "lizard": "animals/lizards/iguana",
    "lobster": "{fish}/lobster",
    "mouse": "{mammals}/rodents/mouse",
    "mushroom": """plants/mushrooms/cep plants/mushrooms/cep-1 plants/mushrooms/cep-2
        food/vegetables/mushroom""",
    "oak_tree": "plants/trees/holm_oak",
    "orange": "{fruit}/orange {fruit}/orange_seville {fruit}/mandarine",
    "otter": "{mammals}/aquatic/otter",
    "palm_tree": "plants/trees/liberia-palm",
    "pear": "{fruit}/pear",
    "rabbit": "{mammals}/rodents/rabbit {mammals}/rodents/rabbit-2 {mammals}/rabbit_little",
    "rose": "plants/flowers/rose",
    "seal": "{mammals}/aquatic/sea_lion",
    "squirrel": "{mammals}/rodents/squirrel",
    "sweet_pepper": "food/vegetables/pepper food/vegetables/yellowpepper",
    "tiger": "{mammals}/cats/tiger {mammals}/cats/tiger_sumatran",
    "tractor": "vehicles/wheel_tractor",
    "whale": "{mammals}/aquatic/whale {mammals}/aquatic/orca",
}
PLACES = {"birds": "animals/birds", "fish": "animals/fish", "fruit": "food/fruit", "mammals": "animals/mammals"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Resize rules on photographs.")
    parser.add_argument("stamps", nargs="?", type=Path, help="Tux Paint's folder of stamps")
    parser.add_argument("--cifar10", help="model of CIFAR-10")
    parser.add_argument("--cifar100", help="model of CIFAR-100")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.stamps is None or not (options.cifar10 or options.cifar100):
        print("skipped: name Tux Paint's folder of stamps and a model")
        return 0
    given = [(options.cifar10, "cifar10", CIFAR10), (options.cifar100, "cifar100", CIFAR100)]
    models = [measure(model, data, kinds, options.stamps) for model, data, kinds in given if model]
    date = datetime.now(UTC).date().isoformat()
    write_json(options.out, {"what": __doc__.splitlines()[0], "models": models, "date": date})
    print(options.out)
    return 0


def labeled(stamps: Path, kinds: dict[str, str]) -> list[tuple[str, Path]]:
    """Class and file of each stamp that is listed in `kinds`."""
    files = {name: listed.format(**PLACES).split() for name, listed in kinds.items()}
    named = [(name, stamps / f"{file}.png") for name, listed in files.items() for file in listed]
    missing = [str(path) for _, path in named if not path.is_file()]
    if missing:
        raise SystemExit(f"no such stamps: {', '.join(missing)}")
    return named


def measure(model: str, data: str, kinds: dict[str, str], stamps: Path) -> dict[str, Any]:
    """Accuracy of one model by rule."""
    classifier = Classifier(find_model(model))
    classes = list(classifier.info.classes)
    named = labeled(stamps, kinds)
    truth = np.array([classes.index(name) for name, _ in named])
    size = classifier.info.input_size
    rules: dict[str, Any] = {}
    for rule in RESIZE_RULES:
        for how, squares in (
            ("bicubic", [load_image(path, size, rule).pixels for _, path in named]),
            ("area", [averaged(decode(path), size, rule) for _, path in named]),
        ):
            outputs = classifier.run(np.stack(squares), ("probabilities",))["probabilities"]
            right = int((outputs.argmax(axis=1) == truth).sum())
            near = int((np.argsort(-outputs, axis=1)[:, :5] == truth[:, None]).any(axis=1).sum())
            rules[f"{rule}, {how}"] = {
                "accuracy": right / len(truth),
                "ci95": list(wilson(right, len(truth))),
                "top5_accuracy": near / len(truth),
            }
            print(
                f"{data:9s} {rule:7s} {how:8s} {right / len(truth):.3f} of {len(truth)}, top 5 {near / len(truth):.3f}"
            )
    about = {"dataset": classifier.info.dataset, "architecture": classifier.info.architecture}
    return {"data": data, **about, "test_accuracy": classifier.info.accuracy, "n": len(truth), "rules": rules}


def averaged(image: Pixels, size: int, rule: str) -> Pixels:
    """`resize` with the mean over areas instead of bicubic reduction."""
    height, width = image.shape[:2]
    if rule == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    scale = size / max(image.shape[:2])
    inner = (size, size) if rule != "pad" else tuple(max(1, round(side * scale)) for side in (width, height))
    small = Image.fromarray(np.ascontiguousarray(image)).resize(inner, Image.Resampling.BOX)
    return resize(np.asarray(small), size, "pad")


if __name__ == "__main__":
    sys.exit(main())
