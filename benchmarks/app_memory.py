"""Peak memory of the app while many photographs of 12 megapixels go through the page Classify in a browser.

    python benchmarks/app_memory.py [--photos 500]

The photographs are one image with other bytes after its end, so that each is a file of its own. Memory is the peak of
the app's process, which runs on Linux only. Nothing is timed.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from thirtytwo.io import write_json

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

RESULTS = Path(__file__).parent / "results" / "app_memory.json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MINUTES = 20
SEED = 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Peak memory of the app with many photographs.")
    parser.add_argument("--photos", type=int, default=500)
    options = parser.parse_args()
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None or not Path("/proc/self/status").is_file():
        print("skipped: needs Linux and a Chromium on the path")
        return 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        files = write_photos(Path(folder), options.photos)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        peaks = measure(browser, files)
        browser.close()
        size = sum(path.stat().st_size for path in files) / 1e6
    found = {
        "what": "peak memory in MB of thirtytwo app, with photographs of 12 megapixels on the page Classify",
        "photographs": options.photos,
        "photographs_mb": round(size),
        **peaks,
        "n": 1,
        "seed": SEED,
        "hardware": hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(RESULTS, found)
    print(json.dumps(found, indent=1))
    return 0


def write_photos(folder: Path, count: int) -> list[Path]:
    small = np.random.default_rng(SEED).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((4000, 3000), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=92)
    files = []
    for number in range(count):
        files.append(folder / f"IMG_{number}.jpg")
        files[-1].write_bytes(stream.getvalue() + number.to_bytes(4, "big"))
    return files


def measure(browser: Any, files: list[Path]) -> dict[str, int]:
    """Peaks in MB: with the page open, and after all photographs were classified."""
    command = [sys.executable, "-m", "thirtytwo", "app", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found, "the app did not start"
        wait_for(f"{found[0]}/_stcore/health")
        page = browser.new_page()
        page.set_default_timeout(MINUTES * 60_000)
        page.goto(found[0])
        page.wait_for_selector("input[type=file]", state="attached")
        opened = peak(process.pid)
        page.set_input_files("input[type=file]", files)
        page.wait_for_selector(f"text={len(files)} images classified")
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        return {"page_open_mb": opened, "peak_mb": peak(process.pid)}
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address: str) -> None:
    while True:
        with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address):
            return
        time.sleep(0.1)


def peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return round(int(found[1]) * 1024 / 1e6)


if __name__ == "__main__":
    sys.exit(main())
