"""The page Classify without a browser: files that are no images, what the model sees, and downloads."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library, photos
from thirtytwo.app.display import Result, as_csv, as_json, cut_off, with_square
from thirtytwo.app.left_out import LeftOut
from thirtytwo.app.settings import AppSettings
from thirtytwo.app.views.classify import counts
from thirtytwo.inference.classifier import Prediction, UnreadableImage

Paint = Callable[..., bytes]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None, colour_model: Path) -> AppTest:
    """The page with a model of colors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings(models=(str(colour_model),)))

    def script() -> None:
        from thirtytwo.app.views import classify

        classify.show()

    found = AppTest.from_function(script, default_timeout=60).run()
    assert not found.exception
    return found


def upload(found: AppTest, files: list[tuple[str, bytes]], turn: int = 0) -> None:
    found.file_uploader(key=f"upload-{turn}").set_value([(*file, "") for file in files]).run()
    assert not found.exception


def notes(found: AppTest) -> str:
    return " ".join(one.value for one in found.warning)


def test_files_that_are_no_images_are_named_and_a_jpeg_needs_no_suffix(found: AppTest, paint: Paint) -> None:
    others = [
        ("IMG_1.MOV", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        ("IMG_2.DNG", b"II*\0" + bytes(40)),
        ("bill.pdf", b"%PDF-1.7"),
        ("notes.txt", b"P5 is a format"),
        ("list.txt", b"BMW and others"),
        ("empty", b""),
    ]
    upload(found, [("a.png", paint("red")), *others, ("IMG_3", paint("blue", kind="JPEG"))])
    assert [one.name for one in found.session_state[photos.CLASSIFIED]] == ["a.png", "IMG_3"]
    assert "6 files left out" in notes(found)
    assert all(name.replace("_", "\\_") in notes(found) or name in notes(found) for name, _ in others)
    assert "HEIC" in notes(found), "the formats"
    assert "Export raw photographs as JPEG" in notes(found)
    found.button(key="upload-left-out-close").click().run()
    assert not found.warning
    upload(found, [("notes.txt", b"text")], 1)
    assert "1 file left out" in notes(found)
    upload(found, [("b.png", paint("green"))], 2)
    assert not found.warning, "the next upload replaces the note"


def test_files_that_are_too_large_are_named() -> None:
    text = " ".join(LeftOut(large=("party.mov", "b.tif")).sentences())
    assert "2 files left out, larger than 50 MB: party.mov, b.tif. Save images smaller" in text
    assert "add a frame" in text
    assert "smaller" not in " ".join(LeftOut(large=("party.mov",)).sentences())


def test_what_to_do_with_an_archive_depends_on_the_page() -> None:
    archives = LeftOut(others=("photos.zip",), large=("all.tar.gz",))
    assert "Unpack" in (text := " ".join(archives.sentences()))
    assert "smaller" not in text
    assert "“Folder or ZIP”" in " ".join(archives.sentences("Folder or ZIP"))
    for name in ("photos.7z", "photos.RAR", "photos.tar"):
        text = " ".join(LeftOut(others=(name,)).sentences("Folder or ZIP"))
        assert "Unpack" in text, "that field takes ZIP files only"
    assert "Unpack" not in " ".join(LeftOut(others=("notes.txt",)).sentences("Folder or ZIP"))


def answer(confidence: float, known: bool) -> Prediction:
    return Prediction("a.png", 4, 4, "cat", confidence, known, (("cat", confidence), ("dog", 1 - confidence)))


def test_downloads_say_how_certain_each_answer_is() -> None:
    results = [answer(0.9, known=True), answer(0.4, known=True), answer(0.9, known=False)]
    expected = ["sure", "not sure", "unknown"]
    assert [row["certainty"] for row in csv.DictReader(io.StringIO(as_csv(results, 2)))] == expected
    assert [one["certainty"] for one in json.loads(as_json(results, 2))] == expected


def test_one_image_is_counted_as_one() -> None:
    results: list[Result] = [answer(0.9, known=True), UnreadableImage("b.png", "b.png is empty.")]
    assert counts(results) == "1 image classified; 1 could not be read"
    results[0] = answer(0.9, known=False)
    assert counts(results).startswith("1 image classified; it may be something")


def labels(found: AppTest) -> list[str]:
    return [one.proto.label for one in found.get("download_button")]


def test_downloads_of_filtered_images_say_which_images_they_have(found: AppTest, paint: Paint) -> None:
    upload(found, [(f"{size}.png", paint("red" if size < 5 else "blue", (20 + size, 20))) for size in range(7)])
    assert {"CSV (all 7)", "JSON (all 7)"} <= set(labels(found))
    assert not [one for one in labels(found) if "filtered" in one]
    found.selectbox(key="shown-class").set_value("blue").run()
    assert {"CSV (2 as filtered)", "CSV (all 7)"} <= set(labels(found))


def test_counts_and_filters_have_a_switch_for_phones(found: AppTest, paint: Paint) -> None:
    upload(found, [(f"{size}.png", paint("red", (20 + size, 20))) for size in range(7)])
    assert not found.toggle(key="filters-open").value
    found.toggle(key="filters-open").set_value(True).run()
    assert found.selectbox(key="shown-class").value == "Any class"


def htmls(found: AppTest) -> str:
    return " ".join(one.proto.body for one in found.get("html"))


def test_keys_of_a_keyboard_are_in_a_note_that_phones_do_not_show(found: AppTest) -> None:
    assert "Ctrl+V" not in " ".join(one.value for one in found.markdown)
    assert re.search('<p class="[^"]*tt-keyboard[^"]*">[^<]*Ctrl\\+V', htmls(found))


def test_parts_that_the_model_does_not_look_at_are_named(
    found: AppTest, paint: Paint, write_model: Callable[..., Path]
) -> None:
    resize = library.info_of(library.entries()[0]).resize
    upload(found, [("wide.png", paint("red", (300, 100)))])
    assert ("not at the sides" in htmls(found)) == (resize == "crop")


@pytest.mark.parametrize(
    ("width", "height", "rule", "expected"),
    [
        (400, 300, "crop", "the sides"),
        (300, 400, "crop", "the top and the bottom"),
        (300, 301, "crop", ""),
        (400, 300, "squash", ""),
        (400, 300, "pad", ""),
    ],
)
def test_what_is_cut_off(width: int, height: int, rule: Any, expected: str) -> None:
    assert cut_off(width, height, rule) == expected


def test_the_square_is_drawn_on_a_copy() -> None:
    image = np.full((40, 100, 3), 200, np.uint8)
    marked = with_square(image)
    assert (image == 200).all()
    assert (marked[:, :30] == 100).all()
    assert (marked[:, 70:] == 100).all()
    assert (marked[3:-3, 33:67] == 200).all()
    assert (marked[1, 31:69] == 255).all()


def test_many_heatmaps_are_prepared_first_and_the_page_says_so(found: AppTest, paint: Paint) -> None:
    upload(found, [(f"{size}.png", paint("red", (20 + size, 20))) for size in range(13)])
    assert found.button(key="zip-all").label == "Prepare 13 heatmaps (ZIP)"
    assert "the button to download the file then stands here" in " ".join(one.value for one in found.caption)
    found.button(key="zip-all").click().run()
    assert not found.exception
    assert "Download heatmaps (ZIP)" in labels(found)


@pytest.mark.browser
@pytest.mark.long
def test_on_a_phone_the_first_answer_comes_before_counts_and_filters(
    visit: Callable[..., Any], paint: Paint, tmp_path: Path
) -> None:
    page = visit(width=390, is_mobile=True, has_touch=True)
    files = [
        {"name": f"{size}.png", "mimeType": "image/png", "buffer": paint("red", (40 + size, 20))} for size in range(7)
    ]
    page.locator("input[type=file]").first.set_input_files(files)
    page.wait_for_selector(".tt-card >> nth=6")
    assert "Ctrl" not in page.inner_text("[data-testid=stMain]")
    assert not page.locator(".tt-tally").is_visible()
    assert not page.get_by_role("combobox", name="Class", exact=True).is_visible()
    page.get_by_text("Counts and filters").click()
    page.locator(".tt-tally").wait_for()
    assert page.get_by_role("combobox", name="Class", exact=True).is_visible()
    assert "not at the sides" in page.locator(".tt-card figcaption").first.inner_text()


@pytest.mark.browser
@pytest.mark.long
def test_a_browser_passes_on_names_of_files_that_it_refuses(
    visit: Callable[..., Any], paint: Paint, tmp_path: Path
) -> None:
    for name, data in (("a.png", paint("red")), ("IMG_3", paint("blue", kind="JPEG")), ("notes.txt", b"text")):
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "party.mov").open("wb") as stream:
        stream.truncate(51 << 20)
    page = visit()
    page.wait_for_selector("text=Ctrl+V")
    page.locator("input[type=file]").first.set_input_files(sorted(tmp_path.iterdir()))
    page.wait_for_selector(".tt-card >> nth=1")
    page.wait_for_selector("text=1 file left out, larger than 50 MB: party.mov.")
    page.wait_for_selector("text=1 file left out, which is no image that can be read: notes.txt.")
    page.get_by_role("button", name="Close this note").click()
    page.wait_for_selector("text=party.mov", state="detached")
    assert page.locator(".tt-card").count() == 2
