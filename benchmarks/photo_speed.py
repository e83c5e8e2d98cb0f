"""Bundled models on photographs: `predict` on a folder and the service, compared with a plain script.

    python benchmarks/photo_speed.py [--photos DIR] [--images 2000] [--repeats 3]

DIR (`photos` under THIRTYTWO_DATA by default) holds photographs, which are resized to JPEGs of 1024×768 pixels in a
temporary folder. The plain script is `plain` below: `Image.open`, `convert("RGB")`, central crop where the model crops,
bicubic `resize`, batches of 32, a session with ONNX Runtime's defaults; one file after the other. It is measured as it
is, and with Pillow's `draft`, which decodes these photographs at half of their size, as thirtytwo does (`draft.py`);
ratios are to the latter. Rounds alternate the order. Written to `benchmarks/results/photo_speed.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from thirtytwo.images.discover import find_images
from thirtytwo.inference.classifier import Classifier, Prediction
from thirtytwo.inference.library import bundled_models
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.inference.session import BATCHES, INPUT, MOST_THREADS
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, package_version

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

from serve import body, load, service

RESULTS = Path(__file__).parent / "results" / "photo_speed.json"
MODELS = ("cifar10", "cifar100", "imagenet")
SHAPE = (1024, 768)
BATCH = 32
PER_REQUEST, CLIENTS = 8, 8
TARGET_RATIO = 1.6
"""An aim, which was not reached."""
ALIKE = 0.02
"""Largest difference in confidence: both sides resize bicubically, thirtytwo after decoding at a smaller scale."""


def main() -> int:
    root = os.environ.get("THIRTYTWO_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=Path(root) / "photos" if root else None)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.photos is None or not options.photos.is_dir():
        print("skipped: name a folder of photographs with --photos, or set THIRTYTWO_DATA")
        return 0
    earlier = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    same = earlier.get("images") == options.images and earlier.get("n") == options.repeats
    models: dict[str, Any] = earlier["models"] if same else {}
    with tempfile.TemporaryDirectory() as place:
        files = write_photos(options.photos, Path(place) / "photos", options.images)
        for name in options.models:
            models[name] = measure(bundled_models()[name], files, options.repeats) | machine()
            print(name, models[name], flush=True)
            write_json(options.out, summary(options.images, options.repeats, models))
    return 0


def summary(images: int, repeats: int, models: dict[str, Any]) -> dict[str, Any]:
    """What is written after each model; those of an earlier run of the same size are kept."""
    return {
        "what": __doc__.splitlines()[0],
        "images": images,
        "pixels": list(SHAPE),
        "n": repeats,
        "threads": cpu_count(MOST_THREADS),
        "plain": "Pillow, then ONNX Runtime with its defaults, batches of 32",
        "service": {"images_per_request": PER_REQUEST, "clients": CLIENTS},
        "target_ratio": TARGET_RATIO,
        "models": models,
    }


def machine() -> dict[str, Any]:
    """Where, with what and when a model was measured."""
    return {
        "hardware": hardware(),
        "onnxruntime": package_version("onnxruntime"),
        "pillow": package_version("pillow"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_photos(source: Path, folder: Path, count: int) -> list[Path]:
    """Write `count` JPEGs of 1024×768 pixels made from the photographs, each of them several times."""
    folder.mkdir()
    originals = find_images([str(source)])[0]
    files = []
    for index, original in enumerate(islice(cycle(originals), count)):
        files.append(folder / f"{index:05}.jpg")
        with Image.open(original) as image:
            image.convert("RGB").resize(SHAPE, Image.Resampling.BICUBIC).save(files[-1], "JPEG", quality=90)
    return files


def measure(model: Path, files: list[Path], repeats: int) -> dict[str, Any]:
    """Images per second of the plain script, with and without `draft`, of `predict` and the service."""
    classifier = Classifier(model, batches=BATCHES)  # as the command opens it for many files
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    contents = [file.read_bytes() for file in files]
    requests = [body(contents[at : at + PER_REQUEST]) for at in range(0, len(contents), PER_REQUEST)]
    expected = [result.confidence for result in classifier.predict(files) if isinstance(result, Prediction)]
    difference = np.abs(plain(session, classifier.info, files).max(axis=1) - expected)
    rates: dict[str, list[float]] = {"plain": [], "draft": [], "predict": [], "service": []}
    with service(model) as server:
        load(server, requests[:CLIENTS], clients=CLIENTS)  # warm
        sides: dict[str, Callable[[], Any]] = {
            "plain": lambda: plain(session, classifier.info, files),
            "draft": lambda: plain(session, classifier.info, files, draft=True),
            "predict": lambda: classifier.predict(files),
            "service": lambda: load(server, requests, clients=CLIENTS).check(expected, PER_REQUEST),
        }
        for number in range(repeats):
            for side in sides if number % 2 == 0 else reversed(sides):
                start = time.perf_counter()
                sides[side]()
                rates[side].append(round(len(files) / (time.perf_counter() - start), 1))
    medians = {side: statistics.median(values) for side, values in rates.items()}
    ratios = {side: round(medians[side] / medians["draft"], 4) for side in ("predict", "service")}
    return {
        "input_size": classifier.info.input_size,
        "images_per_second": rates,
        "median_images_per_second": medians,
        "ratio": ratios,
        "alike": round(float((difference < ALIKE).mean()), 4),
        "met": {side: ratio >= TARGET_RATIO for side, ratio in ratios.items()},
    }


def plain(session: Any, info: ModelInfo, files: list[Path], *, draft: bool = False) -> npt.NDArray[np.float32]:
    """Probabilities `(N, C)` from the shortest script that somebody would write; `draft`: at a smaller scale."""
    found = []
    for start in range(0, len(files), BATCH):
        images = []
        for file in files[start : start + BATCH]:
            with Image.open(file) as opened:
                if draft:
                    opened.draft("RGB", (info.input_size, info.input_size))
                image = opened.convert("RGB")
            if info.resize == "crop":
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                image = image.crop((left, top, left + side, top + side))
            images.append(np.asarray(image.resize((info.input_size, info.input_size), Image.Resampling.BICUBIC)))
        found.append(session.run(["probabilities"], {INPUT: np.stack(images)})[0])
    return np.concatenate(found)


if __name__ == "__main__":
    sys.exit(main())
