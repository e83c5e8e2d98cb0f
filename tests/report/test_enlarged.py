"""Images of the report are enlarged on a click, from the photographs where they are at hand."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from thirtytwo.report.enlarged import Photographs, enlarge
from thirtytwo.report.page import write_page

CLASSES = ("ant", "bee", "cow")
ABOUT = {"name": "pets", "fingerprint": "abc", "classes": list(CLASSES), "superclasses": None, "test": 60}


@pytest.fixture
def photographed(make_run, images_of, tmp_path):
    """A run whose images were cropped from photographs of 600×400 pixels, with those images."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = np.random.default_rng(0)
    run, given = make_run(CLASSES, count=60, data=ABOUT | {"spec": str(folder)})
    for row in given.rows.tolist():
        small = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(small).resize((600, 400)).save(folder / f"{row}.jpg", quality=90)
    files = tuple(f"{row}.jpg" for row in given.rows.tolist())
    return run, replace(images_of(given, 32), files=files), folder


def test_copies_are_of_photographs_and_fit_their_budget(photographed, tmp_path):
    _, images, folder = photographed
    (folder / images.files[1]).unlink()
    copies = enlarge(images, [0, 1, 2], Photographs((tmp_path / "elsewhere", folder), "crop"))
    assert copies[1] is None, "neither a photograph nor larger than a thumbnail"
    assert copies[0].square == "left:16.67%;top:0.00%;width:66.67%;height:100.00%"
    assert "33" in copies[0].note
    assert enlarge(images, [0], Photographs((folder,), "squash"))[0].square == ""
    few = enlarge(images, list(range(2, 12)), Photographs((folder,), "crop"), budget=60_000)
    assert 20_000 < sum(len(one.source) for one in few if one) <= 60_000


@pytest.mark.slow
@pytest.mark.browser
def test_a_click_enlarges_errors_and_images_of_the_viewer(photographed, chromium):
    run, images, _ = photographed
    path = write_page(run, images)
    playwright = pytest.importorskip("playwright.sync_api")
    problems = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path.as_uri())
        assert page.locator("#next .advice li").count() >= 1
        page.locator("#errors .gallery img").nth(1).click()
        page.locator("#enlarged img").evaluate("image => image.decode()")
        assert page.locator("#enlarged img").evaluate("image => image.naturalWidth") == 600
        assert page.locator("#enlarged .square").is_visible()
        assert "marked square" in page.inner_text("#enlarged .bar p")
        page.keyboard.press("ArrowLeft")
        first = page.locator("#errors .gallery img").first
        assert page.get_attribute("#enlarged img", "src") == first.get_attribute("data-large")
        page.keyboard.press("Escape")
        first.focus()
        page.keyboard.press("Enter")
        assert page.locator("#enlarged").is_visible()
        page.keyboard.press("Escape")

        page.locator("#next tr[data-cell]").first.click()
        page.locator("#viewer img").first.click()
        assert page.locator("#enlarged").is_visible()
        assert page.get_attribute("#enlarged img", "src").startswith("data:image/")
        page.keyboard.press("Escape")
        assert page.locator("#viewer").is_visible()
        browser.close()
    assert problems == []
