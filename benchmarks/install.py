"""Download size, disk size and time to the first result of an installation without PyTorch.

    python benchmarks/install.py [--repeats 9]

Installs this checkout with pip, from pip's configured package index, into new environments: alone, and with the extras
`app` and `serve`. The second one is used for predictions, the service and the app. Seconds are from the start of the
command to the result, including Python's start; the first one, with a cold disk cache, is reported separately.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thirtytwo.io import write_json

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "install.json"
EXTRAS = {"alone": "", "with_app_and_serve": "[app,serve]"}
SIDES = (1600, 1200)
MODELS = ("imagenet", "cifar100", "cifar10")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Size of an installation without PyTorch, and time to the first result."
    )
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        wheel = build(Path(place))
        found = {name: install(Path(place) / name, wheel, extras) for name, extras in EXTRAS.items()}
        photo = write_photo(Path(place) / "photo.jpg")
        results = {
            "what": "pip install of this checkout without PyTorch: bytes downloaded, bytes on disk, seconds to results",
            "wheel_mb": megabytes([wheel]),
            "installations": found,
            "answers": answers(Path(place) / "with_app_and_serve", photo, options.repeats),
            "image": f"one JPEG of {SIDES[0]}×{SIDES[1]} pixels",
            "n": options.repeats,
            "python": sys.version.split()[0],
            "hardware": hardware(),
            "date": datetime.now(UTC).date().isoformat(),
        }
    write_json(RESULTS, results)
    print(json.dumps(results, indent=1))
    return 0


def build(place: Path) -> Path:
    """A wheel of this checkout."""
    subprocess.run([*pip(place / "build"), "wheel", "--no-deps", "-w", place, ROOT], check=True)
    return next(place.glob("thirtytwo-*.whl"))


def pip(place: Path) -> list[Path | str]:
    """The pip of a new environment."""
    venv.create(place, with_pip=True)
    return [place / "bin" / "python", "-m", "pip", "-q", "--disable-pip-version-check"]


def install(place: Path, wheel: Path, extras: str) -> dict[str, Any]:
    """Install into a new environment; return the download and disk sizes in MB of 10^6 bytes."""
    command = pip(place)
    before = [path for path in place.rglob("*") if path.is_file()]
    empty, files = megabytes(before), place / "downloads"
    subprocess.run([*command, "download", "-d", files, f"{wheel}{extras}"], check=True)
    downloaded = [path for path in files.iterdir() if path.name != wheel.name]
    results = {"downloaded_mb": megabytes(downloaded), "packages": len(downloaded)}
    subprocess.run([*command, "install", "--no-index", "--find-links", files, f"{wheel}{extras}"], check=True)
    for path in files.iterdir():
        path.unlink()
    results["on_disk_mb"] = round(megabytes([path for path in place.rglob("*") if path.is_file()]) - empty, 1)
    results["torch"] = any(place.rglob("site-packages/torch"))
    return results


def answers(place: Path, photo: Path, repeats: int) -> dict[str, Any]:
    """Seconds to the first result of `predict`, `serve` and `app` in that environment."""
    program = str(place / "bin" / "thirtytwo")
    kinds: dict[str, Callable[[], float]] = {
        f"predict_{model}": partial(predict, program, photo, model) for model in MODELS
    }
    kinds |= {"serve": partial(serve, program, photo), "app": partial(app, program)}
    found = {}
    for name, measure in kinds.items():
        seconds = [measure() for _ in range(repeats + 1)]
        found[name] = {
            "first": round(seconds[0], 2),
            "seconds": [round(one, 2) for one in seconds[1:]],
            "median": round(statistics.median(seconds[1:]), 2),
        }
    return found


def predict(program: str, photo: Path, model: str) -> float:
    """Seconds until `thirtytwo predict` has printed the classes of a photo."""
    begun = time.perf_counter()
    words = [program, "predict", str(photo), "--model", model, "--format", "json"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    assert json.loads(done.stdout)[0]["top"], done.stdout
    return seconds


def serve(program: str, photo: Path) -> float:
    """Seconds from starting `thirtytwo serve` to its first response."""
    boundary = "thirtytwo-benchmark"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="photo.jpg"\r\n\r\n'
    body = head.encode() + photo.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    begun = time.perf_counter()
    with Started([program, "serve", "--port", "0"]) as address:
        request = urllib.request.Request(f"{address}/predict", body)
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)[0]["top"]
        return time.perf_counter() - begun


def app(program: str) -> float:
    """Seconds from starting `thirtytwo app` to a server that is ready; `app.py` measures until pages are."""
    begun = time.perf_counter()
    with Started([program, "app", "--port", "0", "--no-browser"]) as address:
        while time.perf_counter() < begun + 60:
            with suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health"):
                return time.perf_counter() - begun
            time.sleep(0.02)
    raise TimeoutError("the app did not become ready")


class Started:
    """A server in its own process; yields its address."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found is not None, line
        return found[0]

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)


def write_photo(path: Path) -> Path:
    """Smooth random colors, as a JPEG."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(small).resize(SIDES, Image.Resampling.BICUBIC).save(path)
    return path


def megabytes(files: list[Path]) -> float:
    """Total size in MB of 10^6 bytes."""
    return round(sum(path.stat().st_size for path in files if not path.is_symlink()) / 1e6, 1)


if __name__ == "__main__":
    sys.exit(main())
