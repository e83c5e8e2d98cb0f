"""The exported web page predicts like `thirtytwo predict`, opened from a folder, without a network."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thirtytwo
from thirtytwo.export.webpage import FOLDER, SNIPPET
from thirtytwo.inference.classifier import Prediction
from thirtytwo.inference.library import bundled_models

CAT = Path(thirtytwo.__file__).parent / "app" / "samples" / "cat.jpg"
EVIL = "<img src=x onerror=alert(1)>"


def smooth(size: tuple[int, int], seed: int, mode: str = "RGB") -> Image.Image:
    """An image of the size (width, height) with large patches of color."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (5, 7, len(mode)), dtype=np.uint8)
    return Image.fromarray(patches, mode).resize(size, Image.Resampling.BICUBIC)


def page_of(model: Path, folder: Path) -> Path:
    """The files of the exported page, unpacked."""
    archive = folder / "page.zip"
    made = thirtytwo.export_model(model, "web-page", out=archive)
    assert made.agreement is None
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    (folder / FOLDER / "own.html").write_text(SNIPPET, encoding="utf-8")
    return folder / FOLDER


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """PNG files, whose pixels are the same everywhere: small, wide, large and partly transparent."""
    kinds = [((8, 8), "RGB"), ((90, 31), "RGB"), ((640, 419), "RGB"), ((37, 120), "RGBA")]
    files = [tmp_path / f"{number}.png" for number in range(len(kinds))]
    for number, (file, (size, mode)) in enumerate(zip(files, kinds, strict=True)):
        smooth(size, number, mode).save(file)
    return files


@pytest.mark.browser
@pytest.mark.long
def test_pages_predict_like_predict(
    chromium: str, write_model: Callable[..., Path], images: list[Path], tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    models = [
        write_model(tmp_path / f"{rule}.onnx", resize=rule, classes=("red_one", EVIL, "blue"))
        for rule in ("crop", "pad")
    ]
    models.append(bundled_models()["cifar10-tiny"])  # squash
    requested: list[str] = []
    folder = tmp_path
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requested.append(request.url))
        for model in models:
            classifier = thirtytwo.load(model)
            folder = page_of(model, tmp_path / model.stem)
            expected = [one for one in classifier.predict(images) if isinstance(one, Prediction)]
            if model == models[0]:
                check_page(page, folder, images, expected)
            check_snippet(page, folder, images, expected)
        page.goto((folder / "index.html").as_uri())  # of a model that is sure of a cat
        page.set_input_files("input", CAT)
        page.wait_for_selector("article")
        shares = page.locator("article dd").all_inner_texts()
        assert "<\u00a00.1\u00a0%" in shares
        assert "0.0\u00a0%" not in shares
        browser.close()
    assert not [url for url in requested if not url.startswith(("file:", "blob:", "data:"))]


def check_page(page: Any, folder: Path, images: list[Path], expected: list[Prediction]) -> None:
    page.goto((folder / "index.html").as_uri())
    page.wait_for_function("document.querySelector('#state').textContent === 'Ready.'")
    page.set_input_files("input", images)
    page.wait_for_function("count => document.querySelectorAll('article').length === count", arg=len(images))
    shown = page.locator("article h2").all_inner_texts()[::-1]
    for text, one in zip(shown, expected, strict=True):
        assert text == one.top.replace("_", " ") + ("" if one.known and one.confidence >= 0.5 else "?")
    assert "Choose images" in page.inner_text("label")


def check_snippet(page: Any, folder: Path, images: list[Path], expected: list[Prediction]) -> None:
    page.goto((folder / "own.html").as_uri())
    for file, one in zip(images, expected, strict=True):
        page.evaluate("document.querySelector('output').value = ''")
        page.set_input_files("input", file)
        page.wait_for_function("document.querySelector('output').value.endsWith('%')")
        text, share = page.evaluate("document.querySelector('output').value").removesuffix(" %").rsplit(", ", 1)
        tolerance = 1.0 if file == images[-1] else 0.1  # browsers round the colors of transparent pixels
        assert text == ("" if one.known else "unknown, nearest class ") + one.top
        assert float(share) == pytest.approx(100 * one.confidence, abs=tolerance)


def test_the_archive_is_the_same_each_time(colour_model: Path, tmp_path: Path) -> None:
    first, second = (thirtytwo.export_model(colour_model, "web-page", out=tmp_path / name).path for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 6_000_000
