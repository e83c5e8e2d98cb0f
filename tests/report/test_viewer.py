"""The viewer in a real browser: a cell, a pair, a class and a superclass are pressed, and their pictures seen."""

import numpy as np
import pytest

from thirtytwo.report.page import write_report

CLASSES = ("ant", "<b>bee</b>", "cow", "dog")
GROUPS = {"ant": "insects", "<b>bee</b>": "insects", "cow": "beasts", "dog": "beasts"}
SHOWN = """[...document.querySelectorAll('#viewer figure')].map(figure => ({
    wide: figure.querySelector('img')?.naturalWidth ?? 0,
    alt: figure.querySelector('img')?.alt ?? '',
    said: figure.querySelector('figcaption').innerText,
}))"""


@pytest.fixture
def opened(make_run, pictures_of, chromium):
    """A function that opens the report of a small run in a browser and gives the page and its predictions."""
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    problems = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=flags)

        def open_page(*, with_pictures=True, superclasses=None, **options):
            run, given = make_run(CLASSES, superclasses=superclasses)
            path = write_report(run, pictures_of(given) if with_pictures else None)
            page = browser.new_page(**options)
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: problems.append(request.url) if "http" in request.url[:5] else None)
            page.goto(path.as_uri())
            return page, given

        yield open_page
        browser.close()
    assert problems == []


def rows_of(given, truth, called):
    """Rows of this cell, most confident first."""
    places = np.flatnonzero((given.truth == truth) & (given.predicted == called))
    return given.rows[places[np.argsort(-given.confidence[places], kind="stable")]].tolist()


def most_confused(given):
    matrix = np.zeros((4, 4), dtype=int)
    np.add.at(matrix, (given.truth, given.predicted), 1)
    np.fill_diagonal(matrix, 0)
    return divmod(int(matrix.argmax()), 4)


def pictures_seen(page):
    page.wait_for_function(
        "document.querySelectorAll('#viewer img').length > 0"
        " && [...document.querySelectorAll('#viewer img')].every(image => image.naturalWidth > 0)"
    )
    return page.evaluate(SHOWN)


@pytest.mark.browser
def test_a_cell_is_pressed(opened):
    page, given = opened(viewport={"width": 1280, "height": 900})
    truth, called = most_confused(given)
    page.locator(f'svg.matrix [data-at="{truth},{called}"]').click()
    seen, rows = pictures_seen(page), rows_of(given, truth, called)
    assert page.locator("#viewer-title").inner_text() == f"{CLASSES[truth]}, called {CLASSES[called]}"
    assert page.locator("#viewer-count").inner_text().startswith(f"{len(rows)} picture")
    assert [picture["wide"] for picture in seen] == [8] * len(rows)
    for picture, row in zip(seen, rows, strict=True):
        assert picture["alt"] == f"{CLASSES[truth]}, called {CLASSES[called]}"
        sure = float(given.confidence[given.rows == row][0])
        assert f"{100 * sure:.1f}%" in picture["said"]
        assert picture["said"].endswith(f"row {row}")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert page.evaluate("document.activeElement.matches('svg.matrix')")


@pytest.mark.browser
def test_the_picture_shown_is_the_one_that_was_scored(opened, pictures_of):
    page, given = opened(viewport={"width": 1280, "height": 900})
    truth, called = most_confused(given)
    page.locator(f'svg.matrix [data-at="{truth},{called}"]').click()
    pictures_seen(page)
    pixels = page.evaluate(
        """() => { const image = document.querySelector('#viewer img'), canvas = document.createElement('canvas');
        canvas.width = canvas.height = 8; const draw = canvas.getContext('2d'); draw.drawImage(image, 0, 0);
        return [...draw.getImageData(0, 0, 8, 8).data]; }"""
    )
    stored = pictures_of(given).images[given.rows == rows_of(given, truth, called)[0]][0]
    assert (np.array(pixels).reshape(8, 8, 4)[..., :3] == stored).all()


@pytest.mark.browser
def test_the_keyboard_alone_opens_walks_and_closes(opened):
    page, given = opened(viewport={"width": 1280, "height": 900})
    page.locator("svg.matrix").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    rows = rows_of(given, 1, 0)
    assert page.locator("#viewer-title").inner_text() == "<b>bee</b>, called ant"
    assert [seen["said"].split()[-1] for seen in pictures_seen(page)] == [str(row) for row in rows]
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-title").inner_text() == "<b>bee</b>, called right"
    right = int(((given.truth == 1) & (given.predicted == 1)).sum())
    assert len(pictures_seen(page)) == 12
    assert page.locator("#viewer-count").inner_text().startswith(f"{right} pictures, 12 of them here, a sample")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Previous"
    page.keyboard.press("Enter")
    assert page.locator("#viewer-title").inner_text() == "<b>bee</b>, called ant"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('svg.matrix')")
    assert page.locator("#readout-classes").inner_text().startswith("<b>bee</b> called ant: ")


@pytest.mark.browser
def test_a_class_and_a_pair_are_pressed(opened):
    page, given = opened(viewport={"width": 1280, "height": 900})
    page.locator("tr[data-class]", has_text="cow").locator("td").last.click()
    seen = pictures_seen(page)
    wrong = int(((given.truth == 2) & (given.predicted != 2)).sum())
    taken = int(((given.truth != 2) & (given.predicted == 2)).sum())
    heads = page.locator("#viewer-body h3").all_inner_texts()
    assert page.locator("#viewer-title").inner_text() == "cow"
    assert heads[:2] == [f"Called something else: {wrong}", f"Called cow, but are not: {taken}"]
    assert len(seen) == wrong + taken + 12
    page.get_by_role("button", name="Close").click()
    assert page.evaluate("document.activeElement.textContent") == "cow"
    truth, called = most_confused(given)
    page.locator("tr[data-cell] button").first.click()
    assert page.locator("#viewer-title").inner_text() == f"{CLASSES[truth]}, called {CLASSES[called]}"
    assert len(pictures_seen(page)) == len(rows_of(given, truth, called))


@pytest.mark.browser
def test_a_superclass_is_pressed(opened):
    page, given = opened(viewport={"width": 1280, "height": 900}, superclasses=GROUPS)
    page.locator('svg.matrix[data-of="groups"] [data-at="0,1"]').click()
    inside = (given.truth >= 2) & (given.predicted < 2)
    assert page.locator("#viewer-title").inner_text() == "beasts, called insects"
    assert len(pictures_seen(page)) == inside.sum()
    page.keyboard.press("Escape")
    page.locator('svg.matrix[data-of="groups"] [data-at="1,1"]').click()
    within = (given.truth < 2) & (given.predicted < 2) & (given.truth != given.predicted)
    assert page.locator("#viewer-body h3").first.inner_text() == f"Wrong class, right superclass: {within.sum()}"
    page.keyboard.press("Escape")
    page.locator('svg.matrix[data-of="classes"] [data-at="0,1"]').click()  # beasts come first: cow called dog
    assert page.locator("#viewer-title").inner_text() == "cow, called dog"


@pytest.mark.browser
def test_a_finger_on_a_phone_in_the_dark(opened):
    page, given = opened(viewport={"width": 390, "height": 800}, has_touch=True, color_scheme="dark")
    truth, called = most_confused(given)
    page.locator(f'svg.matrix [data-at="{truth},{called}"]').tap()
    assert len(pictures_seen(page)) == len(rows_of(given, truth, called))
    widths = "[document.documentElement.scrollWidth, document.getElementById('viewer').scrollWidth]"
    assert page.evaluate(widths) == [390, 390]
    page.get_by_role("button", name="Next").tap()
    page.get_by_role("button", name="Close").tap()
    assert not page.locator("#viewer").is_visible()


@pytest.mark.browser
def test_names_are_told_where_there_are_no_pictures(opened):
    page, given = opened(with_pictures=False)
    truth, called = most_confused(given)
    page.locator(f'svg.matrix [data-at="{truth},{called}"]').click()
    seen = page.evaluate(SHOWN)
    assert [picture["said"].split()[-1] for picture in seen] == [str(row) for row in rows_of(given, truth, called)]
    assert {picture["wide"] for picture in seen} == {0}
