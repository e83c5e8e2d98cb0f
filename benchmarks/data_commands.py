"""Seconds, memory and size of the output of the commands that look at data: `data show --html` and `data doctor`.

    python benchmarks/data_commands.py [--commands show,doctor,thorough] [--data cifar10,trashnet] [--photographs 20000]

Each measurement is a new process, imports included: first with an empty cache, then with what that run left there. The
data sets are cifar10, cifar100, trashnet (2,527 photographs) and `many`: the photographs of TrashNet, copied until
there are enough, each copy with a patch of noise so that no two are equal. Rewrites these figures in
`benchmarks/results/data_commands.json`, and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name

RESULTS = Path(__file__).parent / "results" / "data_commands.json"
PATCH = 24


COMMANDS = {"show": ["show"], "doctor": ["doctor"], "thorough": ["doctor", "--thorough"]}
DATA = ("cifar10", "cifar100", "trashnet", "many")
FOUND = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--data", default=",".join(DATA[:3]))
    parser.add_argument("--photographs", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    root = os.environ.get("THIRTYTWO_DATA")
    if root is None or not (Path(root) / "trashnet").is_dir():
        print("skipped: set THIRTYTWO_DATA to a folder with cifar10, cifar100 and trashnet")
        return 0
    content = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    with tempfile.TemporaryDirectory() as place:
        for name in options.data.split(","):
            spec = name if name.startswith("cifar") else f"{root}/{name}"
            if name == "many":
                spec = str(Path(place) / "photographs")
                write_photographs(Path(root) / "trashnet", Path(spec), options.photographs)
            for command in options.commands.split(","):
                cache = Path(place) / f"cache-{name}-{command}"
                figures = {kind: measure(command, spec, Path(place), cache) for kind in ("first_time", "from_cache")}
                print(name, command, figures, flush=True)
                content.setdefault("found", {}).setdefault(name, {})[command] = figures | {
                    "n": 1,
                    "photographs": options.photographs if name == "many" else None,
                    "cpu": cpu_name(),
                    "cores": cpu_count(),
                    "date": datetime.now(UTC).date().isoformat(),
                }
                write_json(options.out, {"what": __doc__.splitlines()[0], **content})
    return 0


def measure(command: str, spec: str, place: Path, cache: Path) -> dict[str, float]:
    """Run the command in a new process."""
    page = place / "page.html"
    words = [sys.executable, "-m", "thirtytwo", "data", *COMMANDS[command], spec, "--html", str(page), "--force"]
    start = time.perf_counter()
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"THIRTYTWO_CACHE": str(cache)}
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, FOUND):
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
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
