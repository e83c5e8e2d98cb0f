"""Take the screenshot of a report that the README shows, from the page of a bundled model in `docs/reports/`.

    python tools/screenshots.py [--report PAGE]

Needs a Chromium on the path. Written to `docs/images/report.png`: the head of the report beside its confusion matrix.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT, GAP, COLORS = 620, 760, 24, 96


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, default=ROOT / "docs" / "reports" / "cifar10.html")
    options = parser.parse_args()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        print("There is no Chromium on the path.", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser)
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
        page.goto(options.report.resolve().as_uri())
        head = read_png(page.screenshot())
        matrix = read_png(page.locator("#confusions svg").first.screenshot())
        chromium.close()
    save(beside(head, matrix))
    print(f"written: {OUT.relative_to(ROOT)} ({OUT.stat().st_size / 1000:.0f} kB)")
    return 0


def read_png(data: bytes) -> Any:
    return Image.open(io.BytesIO(data)).convert("RGB")


def beside(left: Any, right: Any) -> Any:
    """Both images side by side, the right one centered, on the page's background."""
    size = (left.width + GAP + right.width + GAP, max(left.height, right.height))
    joined = Image.new("RGB", size, left.getpixel((2, 2)))
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width + GAP, (size[1] - right.height) // 2))
    return joined


def save(image: Any) -> None:
    OUT.parent.mkdir(exist_ok=True)
    image.quantize(COLORS, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
