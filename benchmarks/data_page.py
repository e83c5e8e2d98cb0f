"""Seconds, memory and size of `thirtytwo data show DATA --html`, without and with the cache of decoded images.

    python benchmarks/data_page.py [--photographs 20000] [--out FILE]

Each measurement is a new process, imports included. The photographs are those of TrashNet, copied until there are
enough, each copy with a patch of noise so that no two are equal. Writes `benchmarks/results/data_page.json`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name

RESULTS = Path(__file__).parent / "results" / "data_page.json"
PATCH = 24


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    root = os.environ.get("THIRTYTWO_DATA")
    if root is None or not (Path(root) / "trashnet").is_dir():
        print("skipped: set THIRTYTWO_DATA to a folder with cifar10, cifar100 and trashnet")
        return 0
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photographs"
        write_photographs(Path(root) / "trashnet", folder, options.photographs)
        specs = {"cifar10": "cifar10", "cifar100": "cifar100", "trashnet": f"{root}/trashnet"}
        for name, spec in (specs | {"photographs": str(folder)}).items():
            cache = Path(place) / f"cache-{name}"
            found[name] = {kind: measure(spec, Path(place), cache) for kind in ("first_time", "from_cache")}
            print(name, found[name], flush=True)
    content = {"what": __doc__.splitlines()[0], "n": 1, "seed": 0, "photographs": options.photographs}
    content |= {"cpu": cpu_name(), "cores": cpu_count(), "date": datetime.now(UTC).date().isoformat()}
    write_json(options.out, content | {"found": found})
    return 0


def measure(spec: str, place: Path, cache: Path) -> dict[str, float]:
    """Run the command in a new process."""
    page = place / "page.html"
    command = [sys.executable, "-m", "thirtytwo", "data", "show", spec, "--html", str(page), "--force"]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"THIRTYTWO_CACHE": str(cache)}
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
        "page_mb": round(page.stat().st_size / 1e6, 2),
    }


def write_photographs(source: Path, folder: Path, count: int) -> None:
    """Write `count` photographs in the class folders of `source`."""
    random = np.random.default_rng(0)
    files = sorted(source.rglob("*.jpg"))
    for number in range(count):
        file = files[number % len(files)]
        target = folder / file.parent.name / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.array(Image.open(file).convert("RGB"))
        top, left = random.integers(0, np.array(pixels.shape[:2]) - PATCH)
        pixels[top : top + PATCH, left : left + PATCH] = random.integers(0, 256, (PATCH, PATCH, 3))
        Image.fromarray(pixels).save(target, quality=85)


if __name__ == "__main__":
    sys.exit(main())
