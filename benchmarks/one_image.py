"""One JPEG on the command line, compared with the shortest script with ONNX Runtime and Pillow.

    python benchmarks/one_image.py [--models cifar10 cifar100 imagenet cifar10-tiny] [--repeats 12]

Each measurement is a new process, from its start to its end, with compiled Python modules and files in memory. The
command `thirtytwo predict photo.jpg` and the script `PLAIN` below take turns; the difference of the medians is what the
command costs more: parsing, checking the model file, the table. Peak memory is that of one more process with the
command. Written to `benchmarks/results/one_image.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thirtytwo.inference.library import bundled_models
from thirtytwo.io import write_json
from thirtytwo.machine import package_version

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

RESULTS = Path(__file__).parent / "results" / "one_image.json"
MODELS = ("cifar10", "cifar100", "imagenet", "cifar10-tiny")
SIZES = ((1600, 1200), (4000, 3000))
MOST_MORE_SECONDS, MOST_MB = 0.1, 300

# Runs the command line, then reports its peak memory and whether torch was imported.
WITH_MEMORY = """
import json, sys
from thirtytwo.cli.start import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
lines = open("/proc/self/status").read().splitlines() if sys.platform == "linux" else []
# Not ru_maxrss: under Linux a child starts with its parent's.
peak = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
print(json.dumps({"code": code, "peak_mb": peak, "torch": "torch" in sys.modules}), file=sys.stderr)
"""

# What somebody would write: Python, ONNX Runtime, and Pillow with a JPEG at the smallest scale that suffices.
PLAIN = """
import json, sys
import numpy as np
import onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
info = json.loads(session.get_modelmeta().custom_metadata_map["thirtytwo"])
size = info["input_size"]
image = Image.open(sys.argv[1])
image.draft("RGB", (size, size))
pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
probabilities = session.run(["probabilities"], {"images": pixels[None]})[0][0]
for best in probabilities.argsort()[::-1][:5]:
    print(info["classes"][best], probabilities[best])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=sorted(bundled_models()))
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            found[name] = measure(name, Path(folder), options.repeats)
            print(name, json.dumps(found[name]), flush=True)
    costs = [cost for sizes in found.values() for cost in sizes.values()]
    result = {
        "what": __doc__.splitlines()[0],
        "n": options.repeats,
        "models": found,
        "targets": {"more_seconds": MOST_MORE_SECONDS, "peak_mb": MOST_MB},
        "met": {
            "more_seconds": all(cost["more_seconds"] <= MOST_MORE_SECONDS for cost in costs),
            "peak_mb": all((cost["peak_mb"] or 0) <= MOST_MB for cost in costs),
        },
        "hardware": hardware(),
        "python": sys.version.split()[0],
        "onnxruntime": package_version("onnxruntime"),
        "pillow": package_version("pillow"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(options.out, result)
    return 0


def measure(model: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of both, in turn, and peak memory of the command, for a bundled model and JPEGs of two sizes."""
    noise = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)
    path = str(bundled_models()[model])
    # Python caches compiled modules by default, so the second start is the usual one.
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    settings["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    found: dict[str, Any] = {}
    for width, height in SIZES:
        photo = folder / f"{width}x{height}.jpg"
        Image.fromarray(noise).resize((width, height)).save(photo, quality=90)
        words = ["predict", str(photo), "--model", model]
        command = [sys.executable, "-m", "thirtytwo", *words]
        plain = [sys.executable, "-c", PLAIN, str(photo), path]
        for first in (command, plain):  # compiles, and reads the files into memory
            _run(first, settings)
        seconds: dict[str, list[float]] = {"plain": [], "predict": []}
        for number in range(repeats):
            sides = [("plain", plain), ("predict", command)]
            for side, once in sides if number % 2 == 0 else reversed(sides):
                seconds[side].append(round(_run(once, settings)[0], 3))
        medians = {side: round(statistics.median(values), 3) for side, values in seconds.items()}
        cost = json.loads(_run([sys.executable, "-c", WITH_MEMORY, *words], settings)[1].stderr.splitlines()[-1])
        found[photo.stem] = {
            "seconds": seconds,
            "median_seconds": medians,
            "more_seconds": round(medians["predict"] - medians["plain"], 3),
            "peak_mb": cost["peak_mb"],
            "torch_imported": cost["torch"],
        }
    return found


def _run(command: list[str], settings: dict[str, str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds of a process from its start to its end, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=settings)
    return time.perf_counter() - start, done


if __name__ == "__main__":
    sys.exit(main())
