"""What everybody needs from every page: phones, keyboards, screen readers, plain words, and a way on when it stops."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library
from thirtytwo.app.components import UNKNOWN, headline, matrix, side_by_side, spoken
from thirtytwo.app.frame import STOPPED_TITLE
from thirtytwo.app.settings import AppSettings
from thirtytwo.app.views.models import lower_headings
from thirtytwo.inference.classifier import Prediction
from thirtytwo.machine import network_address

Visit = Callable[..., Any]
PAGES = {
    "classify": "Classify",
    "compare": "Compare",
    "explore": "Explore",
    "data": "Data",
    "train": "Train",
    "models": "Models",
    "teach": "Add classes",
    "help": "Help",
}

SMALL = """() => [...document.querySelectorAll(
    "button, a[href], summary, select, textarea, input, [role=tab], [role=button], [role=combobox], [role=radio]"
  )].map((element) => {
    const tick = element.matches("input[type=checkbox], input[type=radio], input[type=file]");
    const within = tick ? "label, section" : element.matches("[type=range]") ? "[role=group]" : ".stMultiSelect";
    return element.closest(within) ?? element;
  }).filter((element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
  .map((element) => [element, element.getBoundingClientRect()])
  .filter(([, box]) => box.width > 1 && box.height > 1 && (box.height < 43.5 || box.width < 43.5))
  .map(([element, box]) => `${element.tagName} ${element.ariaLabel ?? element.innerText} ${element.dataset.testid} ` +
    `${Math.round(box.width)}×${Math.round(box.height)}`)"""
"""Everything to press that is smaller than a finger needs."""


CUT = """() => [...document.querySelectorAll(
    ".st-key-pages a p, [data-testid=stFileUploaderDropzoneInstructions], [role=tab]"
  )].filter((one) => one.checkVisibility() && one.getBoundingClientRect().width)
  .filter((one) => one.scrollWidth > one.clientWidth + 1 || (one.closest("a") && one.offsetHeight > 24))
  .map((one) => one.innerText)"""
"""Names of pages and of tabs, and formats of files, that are cut off or take two lines."""


def drawn(page: Any) -> None:
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_timeout(400)


@pytest.mark.browser
@pytest.mark.long
def test_a_phone_shows_the_pages_and_has_room_for_fingers(
    visit: Visit, paint: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "red.png").write_bytes(paint("red"))
    page = visit(width=390, is_mobile=True, has_touch=True)
    page.locator("input[type=file]").first.set_input_files(tmp_path / "red.png")
    page.wait_for_selector(".tt-card")
    small: dict[str, list[str]] = {}
    for name, label in PAGES.items():
        link = page.get_by_role("navigation", name="Pages").get_by_role("link", name=label, exact=True)
        assert link.is_visible()
        link.tap()
        page.wait_for_selector(f"a[aria-current=page]:has-text('{label}') >> visible=true")
        drawn(page)
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop") == 0
        assert page.evaluate("document.elementFromPoint(195, 600).closest('[data-testid=stMain]') !== null"), "covered"
        if found := page.evaluate(SMALL):
            small[name] = found
        assert not page.evaluate(CUT), name
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not small
    top = page.get_by_role("button", name="Back to top")
    assert not top.is_visible()
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 1e6)")
    top.tap()
    page.wait_for_function("document.querySelector('[data-testid=stMain]').scrollTop === 0")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Explore").tap()
    page.get_by_role("tab", name="Classes").tap()
    page.wait_for_selector(".tt-more [data-testid=stDataFrameResizable], .tt-more .dvn-scroller")


def read_aloud(page: Any) -> str:
    return str(page.inner_text("#tt-announced"))


@pytest.mark.browser
@pytest.mark.long
def test_nothing_keeps_people_from_using_a_page(
    visit: Visit, accessibility: Callable[[Any], list[str]], paint: Callable[..., bytes], tmp_path: Path
) -> None:
    for color in ("red", "grey"):
        (tmp_path / f"{color}.png").write_bytes(paint(color))
    page = visit()
    found: dict[str, list[str]] = {}
    for name, label in PAGES.items():
        page.get_by_role("link", name=label, exact=True).click()
        page.wait_for_selector(f"a[aria-current=page]:has-text('{label}') >> visible=true")
        drawn(page)
        if name == "classify":
            page.locator("input[type=file]").first.set_input_files([tmp_path / "red.png", tmp_path / "grey.png"])
            page.locator("label", has_text="Show heatmap").first.click()
            page.wait_for_selector("img[alt^='red.png with heatmap: red, >']")
            page.wait_for_selector("img[alt^='grey.png with heatmap: unknown, nearest class ']")
            assert read_aloud(page).startswith("red.png: red, >")
            assert "grey.png: unknown, nearest class" in read_aloud(page)
        if name == "compare":
            page.wait_for_selector("img[alt^='red.png: ']")
            assert "Both agree on" in read_aloud(page)
        if name == "explore":
            page.wait_for_selector(".tt-tile img")
        for summary in page.locator("details > summary").all() if name in ("models", "explore") else []:
            summary.click()
        for tab in page.get_by_role("tab").all() or [None]:
            if tab is not None:
                tab.click()
                drawn(page)
            if problems := accessibility(page):
                found[f"{name} {tab.inner_text() if tab is not None else ''}"] = problems
    assert not found
    page.get_by_role("link", name="Classify", exact=True).focus()
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert re.search(r"solid 3px|3px solid", outline), outline


@pytest.mark.browser
@pytest.mark.long
def test_the_keyboard_keeps_its_place_and_errors_of_the_app_are_explained(
    visit: Visit, shade: Callable[..., list[Path]], tmp_path: Path
) -> None:
    page = visit()
    drawn(page)
    page.locator("input[type=file]").first.set_input_files(shade(tmp_path / "a", (240, 10, 10), 3, seed=1))
    page.wait_for_selector(".tt-thumbnails li >> nth=2")
    drawn(page)
    page.get_by_role("button", name="Remove 1.png").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.tt-thumbnails li').length === 2")
    page.wait_for_function("document.activeElement.getAttribute('aria-label') === 'Remove 2.png'")
    drawn(page)
    page.locator(".tt-card .tt-open").first.press("Enter")
    page.wait_for_selector("#tt-viewer[open]")
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.matches('.tt-open')")
    page.evaluate(
        "document.querySelector('[data-testid=stMain]').insertAdjacentHTML("
        "'beforeend', '<div data-testid=stException><b>StreamlitAPIException</b></div>')"
    )
    page.wait_for_selector("[role=alert]:has-text('Reload the page to go on.')")
    assert "StreamlitAPIException" not in page.inner_text("body")


@pytest.mark.long
@pytest.mark.browser
def test_other_devices_find_the_app_and_learn_when_it_stopped(
    launch_app: Callable[..., Any], browser: Any, colour_model: Path, tmp_path: Path
) -> None:
    running = launch_app("--host", "0.0.0.0", "--model", str(colour_model), cwd=tmp_path)
    port = running.url.rpartition(":")[2]
    page = browser.new_page()
    page.goto(f"{running.url}/help")
    page.wait_for_selector("h2:has-text('On a phone')")
    if (own := network_address()) is not None:
        assert f"http://{own}:{port}" in running.log
        page.wait_for_selector(f"img[alt='QR code of http://{own}:{port}']")
        assert f"http://{own}:{port}" in page.inner_text("body")
    running.process.terminate()
    running.process.wait(30)
    page.wait_for_selector(f"[role=dialog]:has-text('{STOPPED_TITLE}')")
    text = page.inner_text("[role=dialog]")
    assert "in the same network" in text
    assert "internet" not in text
    assert "Streamlit" not in text
    page.close()


def shown(name: str) -> AppTest:
    def script(name: str) -> None:
        import importlib

        importlib.import_module(f"thirtytwo.app.views.{name}").show()

    found = AppTest.from_function(script, default_timeout=60, args=(name,)).run()
    assert not found.exception
    return found


def texts(found: AppTest) -> str:
    kinds = ("title", "header", "subheader", "markdown", "info", "error", "caption")
    return " ".join(str(one.value) for kind in kinds for one in getattr(found, kind))


@pytest.mark.slow
def test_a_run_anywhere_is_opened_by_its_path(
    explorable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings())
    found = shown("explore")
    for path, problem in (
        (tmp_path / "nowhere", "no directory"),
        (tmp_path / ("x" * 300), "no directory"),
        (tmp_path, "not an evaluated run"),
    ):
        found.text_input(key="run-path").set_value(str(path))
        found.button(key="run-open").click().run()
        assert not found.exception
        assert problem in found.error[0].value
    found.text_input(key="run-path").set_value(str(explorable / "runs" / "colours-1"))
    found.button(key="run-open").click().run()
    assert found.selectbox(key="explored-run").value == "colours-1"
    assert "24 images (test)" in found.metric[0].label
    assert [one.label for one in found.selectbox][1:] == ["Actual class", "Predicted class", "Sort"]
    monkeypatch.setattr(library, "settings", AppSettings(host="0.0.0.0"))
    assert not shown("explore").text_input, "from other computers, no path can be named"


def test_help_answers_what_people_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "settings", AppSettings(port=8033))
    text = texts(shown("help"))
    for wanted in ("stays on this computer", "Unknown", "interval", "| A, X |", "Ctrl + V", "to phones in the same"):
        assert wanted in text, wanted


def test_headings_of_a_card_stay_below_that_of_its_model() -> None:
    card = "# Card\n\n## Use\n\n```sh\n# comment\n```\n\n###### Small"
    assert lower_headings(card) == "#### Card\n\n##### Use\n\n```sh\n# comment\n```\n\n###### Small"


@pytest.mark.parametrize(
    ("known", "confidence", "expected"),
    [
        (True, 0.572, "sweet pepper, 57.2\u00a0%"),
        (True, 0.401, "not sure, perhaps sweet pepper, 40.1\u00a0%"),
        (False, 0.9, "unknown, nearest class sweet pepper, 90.0\u00a0%"),
    ],
)
def test_alternative_texts_say_the_answer(known: bool, confidence: float, expected: str) -> None:
    result = Prediction("x", 1, 1, "sweet_pepper", confidence, known, (("sweet_pepper", confidence),))
    assert spoken(result) == expected
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    assert f'alt="x: mine: {expected}"' in side_by_side("x", image, [("mine", result)], 1, agree=True)
    assert (UNKNOWN in headline(result)) is not known


def test_a_matrix_can_be_reached_and_scrolled_by_keyboard() -> None:
    drawn = matrix(np.eye(2, dtype=np.int64), ["sweet_pepper", "b"])
    assert 'tabindex="0" role="region"' in drawn
    assert "Rows: actual class" in drawn
    assert "sweet pepper" in drawn
