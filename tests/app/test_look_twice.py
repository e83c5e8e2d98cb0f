"""Look twice when in doubt: the answers of `predict --tta auto` with their numbers of views, on all pages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library, look_twice, photos
from thirtytwo.app.display import TOP, as_csv, as_json, classify
from thirtytwo.app.library import Entry
from thirtytwo.app.settings import AppSettings
from thirtytwo.app.views import compare
from thirtytwo.inference.classifier import Prediction, UnreadableImage, load
from thirtytwo.inference.library import bundled_models
from thirtytwo.inference.model_file import TtaInfo

DOUBTFUL = (200, 150, 5)
"""A color of which the model of colors is 88 % sure."""


def noise(count: int) -> list[bytes]:
    """Blurred noise as PNG files, of which a model is more or less sure."""
    found = []
    for pixels in np.random.default_rng(3).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8):
        stream = io.BytesIO()
        Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def solid(color: tuple[int, int, int], side: int = 40) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), color).save(stream, "PNG")
    return stream.getvalue()


def page(name: str = "classify") -> AppTest:
    def script(name: str) -> None:
        import importlib

        importlib.import_module(f"thirtytwo.app.views.{name}").show()

    return AppTest.from_function(script, default_timeout=60, args=(name,)).run()


def texts(found: AppTest) -> str:
    shown = [one.value for kind in ("markdown", "caption") for one in getattr(found, kind)]
    return " ".join([*shown, *(one.proto.body for one in found.get("html"))])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None, colour_model: Path) -> Path:
    """An empty working directory of the app with one model, of colors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings(models=(str(colour_model),)))
    return tmp_path


@pytest.mark.parametrize("count", [3, 12])
def test_answers_are_those_of_predict(count: int) -> None:
    path = bundled_models()["cifar10-tiny"]
    entry = Entry("cifar10-tiny", path, library.BUNDLED)
    files = noise(count)
    images = [photos.from_upload(f"{number}.png", data) for number, data in enumerate(files)]
    broken = photos.from_upload("broken.png", b"\x89PNG")
    once, twice = (classify(entry, [*images, broken], twice=wanted) for wanted in (False, True))
    model = load(path)
    for tta, found in (("off", once), ("auto", twice)):
        for one, expected in zip(found[:-1], model.predict(files, TOP, tta=tta), strict=True):
            assert isinstance(one, Prediction)
            assert isinstance(expected, Prediction)
            assert one.top == expected.top
            assert one.known == expected.known
            assert one.confidence == pytest.approx(expected.confidence, abs=2e-5)
    doubtful = [isinstance(one, Prediction) and one.confidence < model.tta.threshold for one in once[:-1]]
    assert sum(doubtful) > 0
    assert [look_twice.views_of(one) for one in twice] == [*(6 if doubt else 1 for doubt in doubtful), 0]
    assert once != twice
    assert not any(map(look_twice.views_of, once))
    assert isinstance(twice[-1], UnreadableImage)


def answered(file: str, views: int) -> Any:
    return look_twice.with_views(Prediction(file, 4, 4, "cat", 0.8, True, (("cat", 0.8), ("dog", 0.2))), views)


def test_downloads_say_how_many_views_were_used() -> None:
    results = [answered("=1+1.png", 2), answered("b.png", 1), UnreadableImage("c.png", "c.png is empty.")]
    rows = list(csv.DictReader(io.StringIO(as_csv(results, 2))))
    assert [one["views"] for one in rows] == ["2", "1", ""]
    assert rows[0]["file"] == "'=1+1.png", "no formula, and escaped once"
    assert (rows[0]["class_2"], rows[2]["error"]) == ("dog", "c.png is empty.")
    assert [one.get("views") for one in json.loads(as_json(results, 1))] == [2, 1, None]
    single = [Prediction("a.png", 4, 4, "cat", 0.8, True, (("cat", 0.8),))]
    assert "views" not in as_csv(single, 1) + as_json(single, 1), "the format of predict"
    compared = list(csv.DictReader(io.StringIO(compare.as_csv({"x": results[:2], "y": results[1::-1]}))))
    assert [(one["x: views"], one["y: views"]) for one in compared] == [("2", "1"), ("1", "2")]
    assert "views" not in compare.as_csv({"x": single})


@pytest.mark.parametrize(
    ("thresholds", "views", "expected"),
    [
        ((0.9,), (2, 1, 1), "Looked again at 1 of 3 images, where the model was less than 90\u00a0% sure."),
        ((0.9,), (1, 1), "One look was enough for every image."),
        ((0.9,), (2,), "Looked again, because the model was less than 90\u00a0% sure."),
        ((0.9,), (1,), "One look was enough."),
        ((0.0,), (1, 1), "This model looks at every image once"),
        ((0.9, 0.0), (2, 1), "Looked again for 1 of 2 answers, where a model was less than 90\u00a0% sure."),
        ((0.9, 0.7), (2, 2), "Looked again for 2 of 2 answers, where a model was below its limit."),
        ((0.0, 0.0), (1, 1), "These models look at every image once"),
    ],
)
def test_the_page_says_what_was_looked_at_again(
    thresholds: tuple[float, ...], views: tuple[int, ...], expected: str
) -> None:
    settings = [TtaInfo(shift=0, threshold=one) for one in thresholds]
    assert look_twice.explanation(settings, [answered("a.png", one) for one in views]).startswith(expected)


def test_the_switch_changes_the_answers_of_the_page(place: Path, paint: Callable[..., bytes]) -> None:
    found = page()
    files = [("sure.png", paint("red"), "image/png"), ("doubtful.png", solid(DOUBTFUL), "image/png")]
    found.file_uploader(key="upload-0").set_value(files).run()
    assert not found.toggle(key=look_twice.KEY).value, "as predict does by default"
    assert "ooked again" not in texts(found)
    found.toggle(key=look_twice.KEY).set_value(True).run()
    assert not found.exception
    assert "Looked again at 1 of 2 images, where the model was less than 90\u00a0% sure." in texts(found)
    assert "Looked again: average of 6 views" in texts(found)
    assert "One look was enough" in texts(found)
    found.segmented_control(key="view").set_value("Table").run()
    assert "<td>6 views</td>" in texts(found)
    found.toggle(key=look_twice.KEY).set_value(False).run()
    assert "ooked again" not in texts(found)


def test_a_file_that_was_prepared_with_other_answers_is_out_of_date(place: Path) -> None:
    found = page()
    files = [(f"{number}.png", solid((200, 150, number)), "image/png") for number in range(13)]
    found.file_uploader(key="upload-0").set_value(files).run()
    found.button(key="zip-all").click().run()
    assert not found.exception
    assert "zip-all" not in {one.key for one in found.button}
    found.toggle(key=look_twice.KEY).set_value(True).run()
    assert "out of date" in texts(found)
    found.button(key="zip-all").click().run()
    assert "out of date" not in texts(found)


@pytest.mark.long
@pytest.mark.browser
def test_the_option_holds_on_all_pages_and_after_reloading(
    visit: Callable[..., Any], paint: Callable[..., bytes], tmp_path: Path
) -> None:
    files = [tmp_path / "sure.png", tmp_path / "doubtful.png"]
    for path, data in zip(files, (paint("red"), solid(DOUBTFUL)), strict=True):
        path.write_bytes(data)
    page = visit()

    def switch() -> Any:
        return page.get_by_role("switch", name=look_twice.LABEL).or_(
            page.get_by_role("checkbox", name=look_twice.LABEL)
        )

    def idle() -> None:
        page.wait_for_timeout(200)
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")

    page.locator("input[type=file]").first.set_input_files(files)
    page.wait_for_selector(".tt-card >> nth=1")
    idle()
    assert not switch().is_checked()
    page.locator("label", has_text=look_twice.LABEL).first.click()
    note = "text=Looked again at 1 of 2 images"
    page.wait_for_selector(note)
    page.wait_for_selector("text=Looked again: average of 6 views")
    assert "look=twice" in page.url
    idle()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV (all 2)", exact=True).click()
    table = csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8")))
    assert {one["file"]: one["views"] for one in table} == {"sure.png": "1", "doubtful.png": "6"}

    page.reload()
    page.wait_for_selector(note)
    assert switch().is_checked()
    idle()
    page.get_by_role("link", name="Compare").first.click()
    page.wait_for_selector("text=Looked again for 2 of 4 answers")
    assert "look=twice" in page.url
    idle()
    page.locator("label", has_text=look_twice.LABEL).first.click()
    page.wait_for_selector("text=Looked again", state="detached")
    idle()
    assert "look=" not in page.url
    page.get_by_role("link", name="Classify").first.click()
    page.wait_for_selector(".tt-card >> nth=1")
    idle()
    assert not switch().is_checked()
    assert page.locator("text=Looked again").count() == 0
