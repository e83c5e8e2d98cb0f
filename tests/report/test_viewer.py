"""The viewer in a real browser: a cell, a pair, a class and a superclass are selected, and their images shown."""

import numpy as np
import pytest

from thirtytwo.report.page import write_page

CLASSES = ("ant", "<b>bee</b>", "cow", "dog")
GROUPS = {"ant": "insects", "<b>bee</b>": "insects", "cow": "beasts", "dog": "beasts"}
SHOWN = """[...document.querySelectorAll('#viewer figure')].map(figure => ({
    wide: figure.querySelector('img')?.naturalWidth ?? 0,
    alt: figure.querySelector('img')?.alt ?? '',
    caption: figure.querySelector('figcaption').innerText,
}))"""


@pytest.fixture
def opened(make_run, images_of, chromium):
    """A function that opens the report of a small run in a browser and gives the page and its predictions."""
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    problems = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=flags)

        def open_page(*, with_images=True, superclasses=None, **options):
            run, given = make_run(CLASSES, superclasses=superclasses)
            path = write_page(run, images_of(given) if with_images else None)
            page = browser.new_page(**options)
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: problems.append(request.url) if "http" in request.url[:5] else None)
            page.goto(path.as_uri())
            return page, given

        yield open_page
        browser.close()
    assert problems == []


def rows_of(given, truth, predicted):
    """Rows of this cell, most confident first."""
    places = np.flatnonzero((given.truth == truth) & (given.predicted == predicted))
    return given.rows[places[np.argsort(-given.confidence[places], kind="stable")]].tolist()


def most_confused(given):
    matrix = np.zeros((4, 4), dtype=int)
    np.add.at(matrix, (given.truth, given.predicted), 1)
    np.fill_diagonal(matrix, 0)
    return divmod(int(matrix.argmax()), 4)


def shown_images(page):
    page.wait_for_function(
        "document.querySelectorAll('#viewer img').length > 0"
        " && [...document.querySelectorAll('#viewer img')].every(image => image.naturalWidth > 0)"
    )
    return page.evaluate(SHOWN)


@pytest.mark.slow
@pytest.mark.browser
def test_selecting_a_cell(opened):
    page, given = opened(viewport={"width": 1280, "height": 900})
    truth, predicted = most_confused(given)
    page.locator(f'svg.matrix [data-at="{truth},{predicted}"]').click()
    seen, rows = shown_images(page), rows_of(given, truth, predicted)
    assert page.locator("#viewer-title").inner_text() == f"{CLASSES[truth]}, predicted as {CLASSES[predicted]}"
    assert page.locator("#viewer-count").inner_text().startswith(f"{len(rows)} image")
    assert [image["wide"] for image in seen] == [8] * len(rows)
    for image, row in zip(seen, rows, strict=True):
        assert image["alt"] == f"{CLASSES[truth]}, predicted as {CLASSES[predicted]}"
        sure = float(given.confidence[given.rows == row][0])
        assert f"{100 * sure:.1f}\u00a0%" in image["caption"]
        assert image["caption"].endswith(f"row {row}")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert page.evaluate("document.activeElement.matches('svg.matrix')")


@pytest.mark.slow
@pytest.mark.browser
def test_shown_image_is_the_evaluated_one(opened, images_of):
    page, given = opened(viewport={"width": 1280, "height": 900})
    truth, predicted = most_confused(given)
    page.locator(f'svg.matrix [data-at="{truth},{predicted}"]').click()
    shown_images(page)
    pixels = page.evaluate(
        """() => { const image = document.querySelector('#viewer img'), canvas = document.createElement('canvas');
        canvas.width = canvas.height = 8; const draw = canvas.getContext('2d'); draw.drawImage(image, 0, 0);
        return [...draw.getImageData(0, 0, 8, 8).data]; }"""
    )
    stored = images_of(given).images[given.rows == rows_of(given, truth, predicted)[0]][0]
    assert (np.array(pixels).reshape(8, 8, 4)[..., :3] == stored).all()


@pytest.mark.slow
@pytest.mark.browser
def test_viewer_works_with_the_keyboard(opened):
    page, given = opened(viewport={"width": 1280, "height": 900})
    page.locator("svg.matrix").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    rows = rows_of(given, 1, 0)
    assert page.locator("#viewer-title").inner_text() == "<b>bee</b>, predicted as ant"
    assert [seen["caption"].split()[-1] for seen in shown_images(page)] == [str(row) for row in rows]
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-title").inner_text() == "<b>bee</b>, correct"
    right = int(((given.truth == 1) & (given.predicted == 1)).sum())
    assert len(shown_images(page)) == 12
    assert page.locator("#viewer-count").inner_text().startswith(f"{right} images, 12 included, a sample")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Previous"
    page.keyboard.press("Enter")
    assert page.locator("#viewer-title").inner_text() == "<b>bee</b>, predicted as ant"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('svg.matrix')")
    assert page.locator("#readout-classes").inner_text().startswith("<b>bee</b> predicted as ant: ")


@pytest.mark.slow
@pytest.mark.browser
def test_selecting_a_class_and_a_pair(opened):
    page, given = opened(viewport={"width": 1280, "height": 900})
    page.locator("tr[data-class]", has_text="cow").locator("td").last.click()
    seen = shown_images(page)
    wrong = int(((given.truth == 2) & (given.predicted != 2)).sum())
    taken = int(((given.truth != 2) & (given.predicted == 2)).sum())
    heads = page.locator("#viewer-body h3").all_inner_texts()
    assert page.locator("#viewer-title").inner_text() == "cow"
    assert heads[:2] == [f"Predicted as another class: {wrong}", f"Predicted as cow, but of another class: {taken}"]
    assert len(seen) == wrong + taken + 12
    page.get_by_role("button", name="Close").click()
    assert page.evaluate("document.activeElement.textContent") == "cow"
    truth, predicted = most_confused(given)
    page.locator("tr[data-cell] button").first.click()
    assert page.locator("#viewer-title").inner_text() == f"{CLASSES[truth]}, predicted as {CLASSES[predicted]}"
    assert len(shown_images(page)) == len(rows_of(given, truth, predicted))


@pytest.mark.slow
@pytest.mark.browser
def test_selecting_a_superclass(opened):
    page, given = opened(viewport={"width": 1280, "height": 900}, superclasses=GROUPS)
    page.locator('svg.matrix[data-of="groups"] [data-at="0,1"]').click()
    inside = (given.truth >= 2) & (given.predicted < 2)
    assert page.locator("#viewer-title").inner_text() == "beasts, predicted as insects"
    assert len(shown_images(page)) == inside.sum()
    page.keyboard.press("Escape")
    page.locator('svg.matrix[data-of="groups"] [data-at="1,1"]').click()
    within = (given.truth < 2) & (given.predicted < 2) & (given.truth != given.predicted)
    assert page.locator("#viewer-body h3").first.inner_text() == f"Wrong class, correct superclass: {within.sum()}"
    page.keyboard.press("Escape")
    page.locator('svg.matrix[data-of="classes"] [data-at="0,1"]').click()  # beasts come first: cow predicted as dog
    assert page.locator("#viewer-title").inner_text() == "cow, predicted as dog"


@pytest.mark.slow
@pytest.mark.browser
def test_touch_on_a_phone_in_dark_mode(opened):
    page, given = opened(viewport={"width": 390, "height": 800}, has_touch=True, color_scheme="dark")
    truth, predicted = most_confused(given)
    page.locator(f'svg.matrix [data-at="{truth},{predicted}"]').tap()
    assert len(shown_images(page)) == len(rows_of(given, truth, predicted))
    widths = "[document.documentElement.scrollWidth, document.getElementById('viewer').scrollWidth]"
    assert page.evaluate(widths) == [390, 390]
    page.get_by_role("button", name="Next").tap()
    page.get_by_role("button", name="Close").tap()
    assert not page.locator("#viewer").is_visible()


@pytest.mark.slow
@pytest.mark.browser
def test_names_are_shown_without_images(opened):
    page, given = opened(with_images=False)
    truth, predicted = most_confused(given)
    page.locator(f'svg.matrix [data-at="{truth},{predicted}"]').click()
    seen = page.evaluate(SHOWN)
    assert [image["caption"].split()[-1] for image in seen] == [str(row) for row in rows_of(given, truth, predicted)]
    assert {image["wide"] for image in seen} == {0}
