"""Throughput of `Classifier.predict_iter` on a folder, relative to ONNX Runtime alone.

    python benchmarks/predict.py MODEL [--data-root DIR] [--images 10000] [--repeats 5]

Both sides run the same model file on the same images. ONNX Runtime alone gets decoded uint8 arrays, at the best of
several batch sizes, with its default settings and with thirtytwo's. thirtytwo gets the folder: it reads, decodes and
builds all its results. Rounds alternate the order; medians and their ratio are reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.classifier import Classifier, Prediction
from thirtytwo.inference.library import find_model, model_name
from thirtytwo.inference.session import BATCHES, INPUT, MOST_THREADS, REQUIRED_OUTPUTS, open_session
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count

RESULTS = Path(__file__).parent / "results" / "predict.json"
BATCH_SIZES = (16, 32, 64, 128, 256)
TARGET = 0.8


def main() -> int:
    parser = argparse.ArgumentParser(description="Throughput on a folder of files.")
    parser.add_argument("model", nargs="?", help="model.onnx or run directory trained on CIFAR-10")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.model is None:
        print("skipped: no model given; train one with: thirtytwo train cifar10")
        return 0
    if options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir():
        print("skipped: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    from thirtytwo.data.load import load_dataset

    try:
        model = find_model(options.model)
        test = load_dataset("cifar10", data_root=Path(options.data_root)).test
        assert test is not None
        pixels = np.ascontiguousarray(test.images[: options.images])
        measured = measure(model, pixels, options.repeats)
    except ThirtytwoError as error:
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, measured)
    print(json.dumps(measured, indent=1))
    return 0


def measure(model: Path, pixels: npt.NDArray[np.uint8], repeats: int) -> dict[str, Any]:
    """Throughput of both sides on the same images, uint8 `(N, S, S, 3)`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_images(pixels, folder / "images")
        throughput = measure_throughput(model, pixels, files, repeats)
    return {
        "what": "thirtytwo predict on a folder of PNG files compared with ONNX Runtime alone on decoded arrays",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "model": {
            "name": model_name(model),
            "bytes": model.stat().st_size,
            "architecture": open_session(model)[1].architecture,
        },
        **throughput,
    }


def measure_throughput(model: Path, pixels: npt.NDArray[np.uint8], files: list[Path], repeats: int) -> dict[str, Any]:
    classifier = Classifier(model, batches=BATCHES)  # as the command opens it for many files
    # Graph threads and spinning: the defaults of ONNX Runtime, and the settings of thirtytwo.
    sessions = {
        "default": onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]),
        "thirtytwo's": classifier.session,
    }
    few = pixels[:2048]
    settings, batch_size = max(
        product(sessions, BATCH_SIZES),
        key=lambda pair: _rate(len(few), lambda: exclusive(sessions[pair[0]], few, pair[1])),
    )
    session = sessions[settings]
    expected = np.concatenate(exclusive(session, pixels, batch_size))
    rates: dict[str, list[float]] = {"onnxruntime": [], "thirtytwo": []}
    for number in range(repeats):
        sides = [
            ("onnxruntime", lambda: exclusive(session, pixels, batch_size)),
            ("thirtytwo", lambda: _check(classifier, files, expected)),
        ]
        for side, run in sides if number % 2 == 0 else reversed(sides):
            rates[side].append(_rate(len(pixels), run))
    medians = {side: statistics.median(values) for side, values in rates.items()}
    ratio = medians["thirtytwo"] / medians["onnxruntime"]
    return {
        "images": len(pixels),
        "n": repeats,
        "threads": cpu_count(MOST_THREADS),
        "onnxruntime_batch_size": batch_size,
        "onnxruntime_settings": settings,
        "images_per_second": {side: [round(value, 1) for value in values] for side, values in rates.items()},
        "median_images_per_second": {side: round(value, 1) for side, value in medians.items()},
        "ratio": round(ratio, 4),
        "target_ratio": TARGET,
        "met": ratio >= TARGET,
    }


def exclusive(session: Any, pixels: npt.NDArray[np.uint8], batch_size: int) -> list[npt.NDArray[np.float32]]:
    """Probabilities `(batch, C)` of decoded arrays; requests the outputs that predicting needs."""
    outputs = list(REQUIRED_OUTPUTS)
    return [
        session.run(outputs, {INPUT: pixels[start : start + batch_size]})[0]
        for start in range(0, len(pixels), batch_size)
    ]


def _check(classifier: Classifier, files: list[Path], probabilities: npt.NDArray[np.float32]) -> None:
    """Classify the folder; every result must equal ONNX Runtime's."""
    for result, row in zip(classifier.predict_iter(files), probabilities, strict=True):
        assert isinstance(result, Prediction)
        assert abs(result.confidence - float(row.max())) < 1e-4


def _rate(count: int, run: Any) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def write_images(pixels: npt.NDArray[np.uint8], folder: Path) -> list[Path]:
    """Write every image as a PNG file."""
    folder.mkdir()
    files = [folder / f"{index:05}.png" for index in range(len(pixels))]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    return files


def hardware() -> dict[str, Any]:
    """Processor and cores of this machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor() or platform.machine(), "cores": os.cpu_count()}


if __name__ == "__main__":
    sys.exit(main())
