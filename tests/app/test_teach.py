"""Add classes in a browser: folders, ZIP files, moving, the verdict, marks on new images, and the camera."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.long]

Visit = Callable[..., Any]
Shade = Callable[..., list[Path]]
COLOURS = {"grape": (130, 30, 180), "sea": (20, 60, 200), "sun": (240, 200, 30)}


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A browser with a camera that shows a moving test image."""
    from playwright.sync_api import sync_playwright

    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", *fake])
        yield opened
        opened.close()


def wait_for_script(page: Any) -> None:
    page.wait_for_timeout(300)  # until the server got what was done
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def wait_for_images(page: Any, count: int, place: str) -> None:
    page.wait_for_function(
        "([place, count]) => document.querySelectorAll(`${place} .tt-thumbnails li`).length === count",
        arg=[place, count],
    )


def choose(page: Any, way: str) -> None:
    wait_for_script(page)
    page.get_by_role("radio", name=way).click()
    wait_for_script(page)


def counts(page: Any) -> list[int]:
    return [page.locator(f".st-key-group-{number} .tt-thumbnails li").count() for number in (1, 2, 3)]


def train(page: Any) -> None:
    wait_for_script(page)
    page.get_by_role("button", name="Train").click()
    page.wait_for_selector("[data-testid=stMetricValue]")
    wait_for_script(page)


def click(page: Any, image: int, name: str) -> None:
    """Press a button of the mark or the classes of a new image."""
    wait_for_script(page)
    page.locator("[class*=st-key-trial-]").nth(image).get_by_role("radio", name=name, exact=True).click()
    wait_for_script(page)


def write_folders(root: Path, shade: Shade) -> Path:
    for number, (name, colour) in enumerate(COLOURS.items()):
        shade(root / name, colour, 6, seed=100 + number)
    (root / "sun" / "notes.txt").write_text("no image")
    return root


def write_zip(path: Path, shade: Shade) -> Path:
    files = shade(path.parent / "more", COLOURS["sun"], 2, seed=200)
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, f"photos/SUN/{file.name}")
    return path


def test_folders_become_classes_whose_model_is_tried_and_nothing_is_lost(
    visit: Visit, shade: Shade, tmp_path: Path
) -> None:
    page = visit("teach")
    choose(page, "Folder or ZIP")
    page.locator(".st-key-class-folders input[type=file]").first.set_input_files(write_folders(tmp_path / "in", shade))
    for number in (1, 2, 3):
        wait_for_images(page, 6, f".st-key-group-{number}")
    page.wait_for_selector("text=18 images of 3 classes added.")
    wait_for_script(page)
    assert [page.get_by_label(f"Name of class {n}").input_value() for n in (1, 2, 3)] == list(COLOURS)

    archive = write_zip(tmp_path / "more.zip", shade)
    page.locator(".st-key-class-folders input[type=file]").last.set_input_files(archive)
    wait_for_images(page, 8, ".st-key-group-3")
    wait_for_script(page)
    page.get_by_label("Move 0.png to another class").first.select_option(label="sea")
    wait_for_images(page, 7, ".st-key-group-2")
    assert counts(page) == [5, 7, 8]
    wait_for_script(page)
    page.get_by_role("button", name="Undo").click()
    wait_for_images(page, 6, ".st-key-group-1")
    assert counts(page) == [6, 6, 8]

    train(page)
    results = page.inner_text("[data-testid=stMain]").replace("\u00a0", " ")
    assert "guessing would be right in 40 %" in results
    assert "To improve it" in results
    assert "Add images of “grape”" in results
    page.get_by_role("button", name="Classify new images").click()
    page.wait_for_function(
        "document.activeElement.textContent.includes('Classify new images') &&"
        " document.activeElement.getBoundingClientRect().bottom < innerHeight"
    )

    new = shade(tmp_path / "new", COLOURS["sea"], 6, seed=300)
    page.get_by_test_id("stFileUploader").last.locator("input[type=file]").set_input_files(new)
    page.wait_for_selector(".tt-card >> nth=5")
    page.wait_for_selector("text=Label next: ")
    to_label = page.get_by_text("Label next: ").inner_text()
    page.get_by_text("Show these first").click()
    wait_for_script(page)
    first = page.locator(".tt-card figcaption").first.inner_text().partition(" ")[0]
    assert first == to_label.removeprefix("Label next: ").partition(",")[0]
    page.get_by_text("Show these first").click()
    assert {text.partition("?")[0] for text in page.locator(".tt-card .tt-top").all_inner_texts()} == {"sea"}
    click(page, 0, "Right")
    click(page, 1, "Wrong")
    click(page, 2, "grape")
    page.wait_for_selector("text=1 of 3 marked answers right")
    page.wait_for_selector("text=Out of date")
    wait_for_images(page, 7, ".st-key-group-1")

    page.reload()
    page.wait_for_selector("text=1 of 3 marked answers right")
    wait_for_images(page, 7, ".st-key-group-1")
    assert counts(page) == [7, 6, 8]
    click(page, 2, "sea")
    wait_for_images(page, 7, ".st-key-group-2")
    page.wait_for_selector("text=2 of 3 marked answers right")
    train(page)
    page.wait_for_selector("text=Images that this model was taught with do not count.")
    page.wait_for_selector("text=1 of 2 marked answers right")


def test_the_camera_adds_bursts_to_classes_and_shows_live_answers(visit: Visit) -> None:
    page = visit("teach")
    wait_for_script(page)
    for number, name in enumerate(("left", "right"), start=1):
        page.get_by_label(f"Name of class {number}").fill(name)
        page.keyboard.press("Tab")
        wait_for_script(page)
    choose(page, "Camera")
    page.get_by_role("button", name="Start the camera").click()
    page.wait_for_function("document.querySelector('.tt-camera video')?.videoWidth > 0")
    hold = page.get_by_role("button", name="Hold to add images of left")
    hold.hover()
    page.mouse.down()
    page.wait_for_function("Number(document.querySelector('.tt-camera output').textContent) >= 7")
    page.mouse.up()
    page.wait_for_selector(".st-key-group-1 .tt-thumbnails li >> nth=6")
    wait_for_script(page)
    page.get_by_role("button", name="Hold to add images of right").focus()
    page.keyboard.press("Space")  # a short press
    page.wait_for_selector(".st-key-group-2 .tt-thumbnails li >> nth=4")
    wait_for_script(page)
    assert page.locator(".st-key-group-2 .tt-thumbnails li").count() == 5
    assert page.evaluate("document.querySelector('.tt-camera video').videoWidth") > 0, "the preview goes on"

    train(page)
    page.get_by_role("button", name="Live answers").click()
    page.wait_for_function(
        "['left', 'right'].some((name) => document.querySelector('.tt-camera .tt-top').textContent.startsWith(name))"
    )
    first = page.inner_text(".tt-camera .tt-bars")
    page.wait_for_function("(first) => document.querySelector('.tt-camera .tt-bars').innerText !== first", arg=first)
    page.reload()
    page.wait_for_selector(".st-key-group-1 .tt-thumbnails li >> nth=6")
    assert "Camera" in page.inner_text("[data-testid=stMain]")


def test_without_https_the_page_says_what_to_do(visit: Visit) -> None:
    page = visit("teach")
    choose(page, "Camera")
    hidden = {"mediaDevices": "Navigator.prototype", "isSecureContext": "window"}
    for name, place in hidden.items():
        page.evaluate(f"Object.defineProperty({place}, {json.dumps(name)}, {{ value: undefined }})")
    page.get_by_role("button", name="Start the camera").click()
    page.wait_for_selector(".tt-camera [role=alert]:has-text('only on this computer (http://localhost) or over https')")
