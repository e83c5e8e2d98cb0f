"""Start time and memory of the app: from the start of the command to a usable page in a browser.

    python benchmarks/app.py --model runs/cifar10 [--repeats 5]

Each start is a new process with a warm disk cache (one earlier start is not counted). Memory is the peak of the app's
process, with every page opened and `MAX_IMAGES` images classified with heatmaps.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
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
import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.library import default_model, find_model
from thirtytwo.inference.model_file import read_info
from thirtytwo.io import write_json

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

RESULTS = Path(__file__).parent / "results" / "app.json"
MAX_IMAGES = 24
PAGES = ("compare", "explore", "data", "train", "models", "teach", "help")
IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"
"""Selector that matches once a page is drawn."""
HEAT = ".st-key-heat label"
"""Selector of the switch that shows heatmaps."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main() -> int:
    parser = argparse.ArgumentParser(description="Start time and memory of the app.")
    parser.add_argument("--model", help="as thirtytwo app takes it; default: bundled, else the newest run")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        print("skipped: no Chromium on the path")
        return 0
    try:
        path = default_model() if options.model is None else find_model(options.model)
    except ThirtytwoError as error:
        print(f"skipped: {error.message}")
        return 0
    arguments = ["--model", str(path)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        visits = [measure(browser, arguments, whole=number == options.repeats) for number in range(options.repeats + 1)]
        browser.close()
    info = read_info(path)
    counted = visits[1:]
    found = {
        "what": "seconds from starting thirtytwo app to a usable page, warm disk cache; memory of its process",
        "model": f"{info.architecture} on {info.dataset}",
        "server_ready": [round(one["ready"], 2) for one in counted],
        "page_ready": [round(one["page"], 2) for one in counted],
        "median_page_ready": round(statistics.median(one["page"] for one in counted), 2),
        "memory_mb_at_start": round(statistics.median(one["memory"] for one in counted)),
        "memory_mb_after_use": round(counted[-1]["used"]),
        "images": MAX_IMAGES,
        "n": options.repeats,
        "hardware": hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(RESULTS, found)
    print(json.dumps(found, indent=1))
    return 0


def measure(browser: Any, arguments: list[str], *, whole: bool) -> dict[str, float]:
    """One start: seconds to the server's and the page's readiness, and memory in MB then and after use."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "thirtytwo", "app", "--port", "0", "--no-browser", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found, "the app did not start"
        while True:
            with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{found[0]}/_stcore/health"):
                break
            time.sleep(0.02)
        results = {"ready": time.perf_counter() - started}
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(found[0])
        page.wait_for_selector("input[type=file]", state="attached")
        results["page"] = time.perf_counter() - started
        results["memory"] = psutil.Process(process.pid).memory_info().rss / 1e6
        if whole:
            results["used"] = use(page, found[0], process.pid)
        page.close()
        return results
    finally:
        process.terminate()
        process.wait(30)


def use(page: Any, address: str, pid: int) -> float:
    """Classify images with heatmaps and open every page; return the peak memory in MB."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in range(MAX_IMAGES):
            small = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            files.append(Path(folder) / f"{number}.jpg")
            Image.fromarray(small).resize((1600, 1200), Image.Resampling.BICUBIC).save(files[-1])
        page.set_input_files("input[type=file]", files)
        page.wait_for_selector(".tt-card")
        page.locator(HEAT).first.click()
        page.wait_for_selector("img[alt*=' with heatmap: ']")
        page.wait_for_selector(IDLE)
        most = psutil.Process(pid).memory_info().rss / 1e6
    for path in PAGES:
        page.goto(f"{address}/{path}")
        page.wait_for_selector("h1")
        page.wait_for_timeout(500)  # until the script runs
        page.wait_for_selector(IDLE)
        most = max(most, psutil.Process(pid).memory_info().rss / 1e6)
    return most


if __name__ == "__main__":
    sys.exit(main())
