"""The exported web page predicts like `thirtytwo predict`, opened from a folder, without a network."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thirtytwo
from thirtytwo.export.webpage import FOLDER, SNIPPET
from thirtytwo.images.open import MIN_SIDE
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


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    smooth((width, height), 1).save(stream, "PNG")
    return stream.getvalue()


def chosen(name: str, content: bytes) -> dict[str, Any]:
    """A file as a browser passes it on, which goes by its name."""
    return {"name": name, "mimeType": "image/png", "buffer": content}


@pytest.fixture
def opened(chromium: str, colour_model: Path, tmp_path: Path) -> Iterator[Any]:
    """A browser with the page of a model of colors, which is ready."""
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((page_of(colour_model, tmp_path) / "index.html").as_uri())
        page.wait_for_function("document.querySelector('#state').textContent === 'Ready.'")
        yield page
        browser.close()
    assert not errors


@pytest.mark.browser
@pytest.mark.long
def test_a_page_names_each_file_that_it_cannot_read(opened: Any) -> None:
    least = MIN_SIDE
    bad = {
        "broken.jpg": CAT.read_bytes()[:200],
        f"{EVIL}.jpg": b"a text",
        "empty.jpg": b"",
        "dot.png": png(1, 1),
        "line.png": png(least - 1, 5),
    }
    good = {"small.png": png(least, least), "cat.jpg": CAT.read_bytes()}
    opened.set_input_files("input", [chosen(*file) for file in [*bad.items(), *good.items()]])
    opened.wait_for_function("document.querySelectorAll('article').length === 2")
    named = opened.locator("#unread li").all_inner_texts()
    assert [one.partition(": ")[0] for one in named] == [*bad]
    assert "empty" in named[2]
    assert "1×1" in named[3]
    assert f"{least - 1}×5" in named[4]
    opened.wait_for_function("document.querySelector('#state').textContent.startsWith('cat.jpg: ')")
    opened.set_input_files("input", chosen("notes.jpg", b"a text"))  # all that was chosen before is dealt with
    opened.wait_for_function("document.querySelector('#unread').textContent.startsWith('notes.jpg')")
    opened.wait_for_function("!document.querySelector('#state').textContent.startsWith('Classifying')")
    assert "cat.jpg" not in opened.inner_text("#state")


@pytest.mark.browser
@pytest.mark.long
def test_files_that_are_dropped_while_others_are_classified_wait_for_them(opened: Any) -> None:
    opened.evaluate(
        """names => names.forEach((name) => {
          const dataTransfer = new DataTransfer();
          for (const part of ["a", "b"]) dataTransfer.items.add(new File(["a text"], `${name}-${part}.jpg`));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        })""",
        ["first", "second"],
    )
    opened.wait_for_function("document.querySelectorAll('#unread li').length === 4")
    named = [one.partition(": ")[0] for one in opened.locator("#unread li").all_inner_texts()]
    assert named == ["first-a.jpg", "first-b.jpg", "second-a.jpg", "second-b.jpg"]


@pytest.mark.browser
@pytest.mark.long
def test_a_page_of_ones_own_shows_no_earlier_answer_for_a_file_that_it_cannot_read(opened: Any, tmp_path: Path) -> None:
    opened.goto((tmp_path / FOLDER / "own.html").as_uri())
    opened.set_input_files("input", CAT)
    opened.wait_for_function("document.querySelector('output').value.endsWith('%')")
    opened.set_input_files("input", chosen("notes.jpg", b"a text"))
    opened.wait_for_function("!document.querySelector('output').value.includes('%')")


def test_the_archive_is_the_same_each_time(colour_model: Path, tmp_path: Path) -> None:
    first, second = (thirtytwo.export_model(colour_model, "web-page", out=tmp_path / name).path for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 6_000_000
