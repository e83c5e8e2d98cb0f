"""Take the screenshots of README and docs, from the page of a bundled model in `docs/reports/` and from the app.

    python tools/screenshots.py [--report PAGE] [--only report|app]

Needs a Chromium on the path. Written to `docs/images/`: the head of the report beside its confusion matrix, and pages
of `thirtytwo app` with a model that is trained for this, on digits.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SAMPLES = ROOT / "src" / "thirtytwo" / "app" / "samples"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT, GAP, COLORS = 620, 760, 24, 96
DESKTOP, PHONE = {"width": 1100, "height": 760}, {"width": 390, "height": 780}
TAUGHT, EACH = ("3", "5", "8"), 12
"""Digits of the model that the page Add classes makes, and images of each."""
TO_TOP = "(element) => { element.style.scrollMarginTop = '80px'; element.scrollIntoView(); }"
WAIT = 120_000
"""Milliseconds that the app may take to show something, on a slow machine."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, default=ROOT / "docs" / "reports" / "cifar10.html")
    parser.add_argument("--only", choices=("report", "app"), help="default: both")
    options = parser.parse_args()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        print("There is no Chromium on the path.", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser)
        if options.only != "app":
            take_report(chromium, options.report)
        if options.only != "report":
            with running_app() as (address, folder):
                take_app(chromium, address, folder)
        chromium.close()
    return 0


def take_report(chromium: Any, report: Path) -> None:
    """The head of a report beside its confusion matrix."""
    page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
    page.goto(report.resolve().as_uri())
    head = read_png(page.screenshot())
    matrix = read_png(page.locator("#confusions svg").first.screenshot())
    page.close()
    save(beside(head, matrix), "report")


def take_app(chromium: Any, address: str, folder: Path) -> None:
    """The pages Classify, on a desktop and on a phone, Explore, Add classes and Train."""
    for name, size in (("app-classify", DESKTOP), ("app-phone", PHONE)):
        page = chromium.new_page(viewport=size, device_scale_factor=1)
        page.goto(address, timeout=WAIT)
        page.wait_for_selector("input[type=file]", state="attached", timeout=WAIT)
        page.locator("input[type=file]").first.set_input_files([SAMPLES / "coffee.jpg"])
        page.wait_for_selector(".tt-card", timeout=WAIT)
        page.locator(".tt-card").first.scroll_into_view_if_needed()
        page.wait_for_timeout(1500)  # transitions
        save(read_png(page.screenshot()), name)
        page.close()
    page = chromium.new_page(viewport=DESKTOP, device_scale_factor=1)
    page.goto(f"{address}/explore")
    page.wait_for_selector(".tt-tile img", timeout=WAIT)
    page.get_by_role("tab", name="Confusions").click()
    page.wait_for_selector(".tt-matrix", timeout=WAIT)
    page.wait_for_timeout(1500)
    page.wait_for_selector("[data-testid=stSpinner]", state="hidden", timeout=WAIT)  # it looks for wrong labels
    save(read_png(page.screenshot()), "app-explore")
    page.close()
    take_teaching(chromium, address, folder / "three")
    take_training(chromium, address)


def take_teaching(chromium: Any, address: str, photographs: Path) -> None:
    """The page Add classes with a model of three classes."""
    page = chromium.new_page(viewport=DESKTOP, device_scale_factor=1)
    page.set_default_timeout(WAIT)
    page.goto(f"{address}/teach")
    page.get_by_role("radio", name="Folder or ZIP").click()
    page.locator(".st-key-class-folders input[type=file]").first.set_input_files(photographs)
    page.wait_for_selector(f".st-key-group-{len(TAUGHT)} .tt-thumbnails li >> nth={EACH - 1}")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_selector("[data-testid=stMetricValue]")
    page.wait_for_timeout(1500)
    page.get_by_role("heading", name="Result").evaluate(TO_TOP)
    page.wait_for_timeout(500)
    save(read_png(page.screenshot()), "app-teach")
    page.close()


def take_training(chromium: Any, address: str) -> None:
    """The page Train with the check of a data set and the recommended recipe."""
    page = chromium.new_page(viewport=DESKTOP, device_scale_factor=1)
    page.set_default_timeout(WAIT)
    page.goto(f"{address}/train")
    field = page.get_by_role("textbox").first
    field.fill("digits")
    field.press("Enter")
    page.get_by_role("button", name="Start training").wait_for()
    page.wait_for_timeout(1500)
    save(read_png(page.screenshot()), "app-train")
    page.close()


@contextmanager
def running_app() -> Iterator[tuple[str, Path]]:
    """The address of `thirtytwo app`, and its folder with a finished run and `three`, a folder for each taught class.

    The app is stopped at the end.
    """
    command = [sys.executable, "-m", "thirtytwo"]
    with tempfile.TemporaryDirectory() as folder:
        train = ["train", "digits", "--recipe", "digits", "--epochs", "3", "--run", "runs/digits"]
        subprocess.run([*command, *train], cwd=folder, check=True, capture_output=True)
        export = ["data", "export", "digits", "--format", "folder", "--out", "digits"]
        subprocess.run([*command, *export], cwd=folder, check=True, capture_output=True)
        write_classes(Path(folder))
        arguments = ["app", "--port", "0", "--no-browser"]
        own = os.environ | {"THIRTYTWO_PROJECTS": str(Path(folder) / "projects")}
        app = subprocess.Popen([*command, *arguments], cwd=folder, env=own, stderr=subprocess.PIPE, text=True)
        try:
            assert app.stderr is not None
            found = next(match for line in app.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
            wait_for(f"{found[0]}/_stcore/health")
            yield found[0], Path(folder)
        finally:
            app.terminate()
            app.wait()


def write_classes(folder: Path) -> None:
    """Copy the first images of each taught class from the exported digits."""
    for name in TAUGHT:
        target = folder / "three" / name
        target.mkdir(parents=True)
        source = next((folder / "digits").rglob(f"train/{name}"))
        for file in sorted(source.iterdir())[:EACH]:
            shutil.copy(file, target / file.name)


def wait_for(address: str) -> None:
    """Wait until a server answers."""
    for _ in range(WAIT // 500):
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise TimeoutError(f"{address} did not answer")


def read_png(data: bytes) -> Any:
    return Image.open(io.BytesIO(data)).convert("RGB")


def beside(left: Any, right: Any) -> Any:
    """Both images side by side, the right one centered, on the page's background."""
    size = (left.width + GAP + right.width + GAP, max(left.height, right.height))
    joined = Image.new("RGB", size, left.getpixel((2, 2)))
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width + GAP, (size[1] - right.height) // 2))
    return joined


def save(image: Any, name: str) -> None:
    out = IMAGES / f"{name}.png"
    image.quantize(COLORS, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"written: {out.relative_to(ROOT)} ({out.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    sys.exit(main())
