"""A click on an image opens the photograph; classes and confusions lead to their images; many images are manageable."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.long]

Visit = Callable[..., Any]
COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}
RIGHT_TURN = 6
"""EXIF orientation of a photograph that was stored lying on its side."""
OPENED = "#tt-viewer[open]"


def photograph(colour: str, size: tuple[int, int], seed: int, kind: str = "JPEG", orientation: int = 1) -> bytes:
    """Noise of about one colour."""
    random = np.random.default_rng(seed)
    small = np.clip(np.array(COLOURS[colour]) + random.integers(-30, 31, (12, 16, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 90, "exif": exif} if kind == "JPEG" else {}))
    return stream.getvalue()


@pytest.fixture(scope="session")
def photographed(explorable: Path, finished_run: Callable[..., Path]) -> Path:
    """A run of photographs, twice as wide as high, below the runs of the app; returns the folder of its data."""
    from thirtytwo.data.load import load_dataset

    data = explorable / "photographs"
    for split, count in (("train", 4), ("test", 8)):
        for number, name in enumerate(("red", "green", "blue")):
            folder = data / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                content = photograph(name, (480, 240), 100 * number + 10 * count + index)
                (folder / f"IMG_{index}.jpg").write_bytes(content)
    (data / "train" / "green" / "copy.jpg").write_bytes((data / "train" / "red" / "IMG_0.jpg").read_bytes())
    found = load_dataset(str(data))
    assert found.test is not None
    finished_run(
        explorable / "runs" / "photographs-1",
        truth=found.test.labels,
        rows=found.test.rows,
        classes=found.classes,
        skill=1.0,
        data={"spec": str(data), "fingerprint": found.fingerprint},
    )
    return data


def ready(page: Any) -> None:
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def opened(page: Any, width: int) -> str:
    """Wait until the image that is open has this width; returns its address."""
    shown = f"document.querySelector('{OPENED} .tt-viewer-image')?.naturalWidth === {width}"
    page.wait_for_function(f"{shown} && document.querySelector('{OPENED} .tt-viewer-about').innerText !== 'Opening …'")
    return str(page.get_attribute(f"{OPENED} .tt-viewer-image", "src"))


def go(page: Any, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    page.wait_for_selector(f"h1:has-text('{name}')")
    ready(page)


def test_a_click_opens_the_photograph_on_every_page(visit: Visit, app: Any, photographed: Path, tmp_path: Path) -> None:
    files = [tmp_path / "phone.jpg", tmp_path / "scan.tif"]
    files[0].write_bytes(photograph("red", (1600, 900), 1, orientation=RIGHT_TURN))
    files[1].write_bytes(photograph("blue", (800, 600), 2, "TIFF"))
    page = visit()
    ready(page)
    page.locator("input[type=file]").first.set_input_files(files)
    page.locator(".tt-card").nth(1).wait_for()
    ready(page)

    page.locator(".tt-card .tt-open").first.click()
    source = opened(page, 900)
    assert page.request.get(f"{app.url}{source}").body() == files[0].read_bytes(), "the file itself, not a copy"
    assert "900×1600 pixels" in page.inner_text(".tt-viewer-about")
    assert "marked square at 8×8 pixels. The ends, 44\u00a0%" in page.inner_text(".tt-viewer-note >> nth=0")
    top = page.evaluate("document.querySelector('.tt-viewer-square').style.top")
    assert float(top.rstrip("%")) == pytest.approx(100 * 350 / 1600)
    page.locator("[data-of=heat]").click()
    page.locator(".tt-viewer-heat").wait_for()
    assert page.locator(".tt-legend").last.is_visible()
    page.keyboard.press("ArrowRight")
    opened(page, 800)  # a browser cannot show TIFF: it gets a JPEG
    page.locator(".tt-viewer-heat").wait_for()
    page.get_by_role("button", name="Actual size").click()
    page.wait_for_function("document.querySelector('.tt-viewer-image').clientWidth === 800")
    page.keyboard.press("Escape")
    assert not page.locator(OPENED).count()
    assert page.evaluate("document.activeElement.className") == "tt-open"
    page.locator(".tt-thumbnails .tt-open").first.click()
    opened(page, 900)
    page.get_by_role("button", name="Close").click()

    go(page, "Compare")
    page.locator(".tt-beside .tt-open").first.click()
    opened(page, 900)
    page.keyboard.press("Escape")

    go(page, "Data")
    page.get_by_role("textbox", name="Folder, CSV file or known data set").fill(str(photographed))
    page.get_by_role("button", name="Check", exact=True).click()
    page.wait_for_selector("text=/A central crop cuts off the ends of all images: 50/", state="attached")
    page.locator(".tt-review .tt-open").first.wait_for()
    ready(page)
    position = page.locator("[data-testid=stProgress]").last.inner_text()
    page.locator(".tt-review .tt-open").first.click()
    opened(page, 480)
    page.keyboard.press("ArrowRight")
    opened(page, 480)
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    ready(page)
    assert page.locator("[data-testid=stProgress]").last.inner_text() == position, "keys of the page below"


def test_explore_leads_to_images_and_their_originals(visit: Visit, photographed: Path) -> None:
    page = visit("explore")
    page.wait_for_selector("button:has-text('to check')")
    ready(page)
    page.get_by_role("combobox", name="Run").click()
    page.get_by_role("option", name="photographs-1").click()
    page.wait_for_selector("text=5 of 8 recognized")
    ready(page)
    pair = page.locator("[class*=st-key-pair-0] button").first
    true, _, rest = pair.inner_text().partition(" → ")
    predicted, count = rest.partition(": ")[0], int(rest.partition(": ")[2].split()[0])
    pair.click()
    page.wait_for_function(f"document.querySelectorAll('.tt-tile img').length === {count}")
    assert all(text.startswith(true) and f"predicted as {predicted}" in text for text in tiles(page))

    page.get_by_role("tab", name="Confusions").click()
    cell = page.locator("[data-pick='0,0']")
    cell.wait_for()
    ready(page)
    count = int(cell.inner_text())
    cell.click()
    page.wait_for_function(f"document.querySelectorAll('.tt-tile img').length === {count}")
    assert page.get_by_role("tab", name="Images").get_attribute("aria-selected") == "true"
    assert not any("predicted as" in text for text in tiles(page))
    ready(page)

    page.get_by_role("tab", name="Classes").click()
    table = page.locator("[data-testid=stDataFrame] >> visible=true")
    table.wait_for()
    ready(page)
    table.click(position={"x": 16, "y": 52})
    page.wait_for_function("document.querySelectorAll('.tt-tile img').length === 8")
    ready(page)
    page.get_by_label("File name").fill("ROW 3")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.tt-tile img').length === 1")
    ready(page)
    page.locator(".tt-tile .tt-open").click()
    opened(page, 480)
    assert "IMG_3.jpg" in page.inner_text("#tt-viewer-title")
    assert "marked square" in page.inner_text(".tt-viewer-note >> nth=0")
    page.locator("[data-of=heat]").click()
    page.locator(".tt-viewer-heat").wait_for()


def tiles(page: Any) -> list[str]:
    return [text.replace("\n", " ") for text in page.locator(".tt-tile").all_inner_texts()]


def test_many_images_are_filtered_sorted_and_downloaded(
    visit: Visit, paint: Callable[..., bytes], tmp_path: Path
) -> None:
    names = {"red": 6, "green": 4, "blue": 2, "grey": 2}
    files = []
    for colour, count in names.items():
        for number in range(count):
            files.append(tmp_path / f"{colour} {number}.png")
            files[-1].write_bytes(paint(colour, (40 + number, 30)))
    files.append(tmp_path / "a photo.jpg")
    files[-1].write_bytes(photograph("red", (1200, 900), 3))
    page = visit()
    ready(page)
    page.locator("input[type=file]").first.set_input_files(files)
    page.wait_for_selector("text=15 images classified; 2 of them may be something")
    page.wait_for_selector(".tt-tally")
    ready(page)
    assert page.locator(".tt-tally b").all_inner_texts() == ["red, 7", "green, 4", "blue, 2", "(unknown), 2"]
    assert page.locator(".tt-card").count() == 8
    assert page.locator("[data-testid=stPagination]").count() == 2, "a pager at both ends"
    page.locator("[data-testid=stPagination]").last.get_by_text("2", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.tt-card').length === 7")
    ready(page)

    page.get_by_text("Grid", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.tt-results .tt-tile').length === 15")
    ready(page)
    page.get_by_text("Unknown", exact=True).click()
    page.wait_for_selector("text=2 of 15 images")
    ready(page)
    assert all(", unknown" in text for text in page.locator(".tt-results .tt-tile").all_inner_texts())
    page.get_by_text("All", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.tt-results .tt-tile').length === 15")
    ready(page)
    page.get_by_role("combobox", name="Class", exact=True).click()
    page.get_by_role("option", name="green (4)").click()
    page.wait_for_selector("text=4 of 15 images")
    ready(page)
    page.get_by_role("combobox", name="Sort").click()
    page.get_by_role("option", name="File name").click()
    page.wait_for_function("document.querySelector('.tt-results .tt-tile span').innerText === 'green 0.png'")
    ready(page)

    page.get_by_role("button", name="Prepare 15 heatmaps (ZIP)", exact=True).click()
    page.get_by_role("button", name="Download heatmaps (ZIP)").wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download heatmaps (ZIP)").click()
    with zipfile.ZipFile(Path(waiting.value.path())) as archive:
        assert len(archive.namelist()) == 16
        assert Image.open(archive.open("a photo.jpg")).size == (1024, 768)
        assert len(json.loads(archive.read("predictions.json"))) == 15
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV (all 15)", exact=True).click()
    assert len(Path(waiting.value.path()).read_text().splitlines()) == 16, "all images, not only those shown"
