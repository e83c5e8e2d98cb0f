"""Pages without a browser: no models, invalid input, and filters."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thirtytwo.errors import ModelFileError, ServiceError, UnknownNameError

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import display, launch, library, photos
from thirtytwo.app.about_models import examples
from thirtytwo.app.certainty import SURE as CONFIDENT
from thirtytwo.app.components import bars, headline, image_grid, matrix, short_headline, side_by_side
from thirtytwo.app.display import as_csv, as_json
from thirtytwo.app.images import sample_files
from thirtytwo.app.problems import short
from thirtytwo.app.results import BY_CLASS, BY_NAME, LEAST_SURE, UNKNOWN, UNREADABLE, Criteria, matching, tally
from thirtytwo.app.results import UNSURE as NOT_SURE
from thirtytwo.app.settings import LOOPBACK, PORT, AppSettings, streamlit_options
from thirtytwo.app.views import compare
from thirtytwo.app.views.drill_down import SUSPECTED, WRONG
from thirtytwo.app.views.explore import ALL, SURE, UNSURE, PredictionFilter, class_rows, select
from thirtytwo.inference.classifier import Prediction, UnreadableImage, load
from thirtytwo.inference.library import bundled_models
from thirtytwo.predictions import Predictions
from thirtytwo.text import readable

MAIN = Path(launch.__file__).with_name("main.py")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None) -> Path:
    """An empty working directory of the app, without bundled models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setattr(library, "settings", AppSettings())
    return tmp_path


def page(name: str) -> AppTest:
    """One page of the app, run once."""

    def script(name: str) -> None:
        import importlib

        from thirtytwo.errors import ThirtytwoError

        try:
            importlib.import_module(f"thirtytwo.app.views.{name}").show()
        except ThirtytwoError as error:
            import streamlit as st

            st.error(str(error))

    found = AppTest.from_function(script, default_timeout=60, args=(name,)).run()
    assert not found.exception
    return found


def texts(found: AppTest) -> str:
    return " ".join(one.value for kind in ("markdown", "info", "error", "caption") for one in getattr(found, kind))


@pytest.mark.parametrize("name", ["classify", "compare", "models", "fewshot"])
def test_pages_without_a_model_show_how_to_get_one(place: Path, name: str) -> None:
    found = page(name)
    assert "train one on your own images" in texts(found)
    assert found.file_uploader(key="model-upload").allowed_type == [".onnx"]


def test_bundled_models_have_their_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings())
    found = page("models")
    assert not found.exception
    cards = [one.value for one in found.markdown if "## Limitations" in one.value]
    assert len(cards) == len(bundled_models())
    assert not any("<details>" in one or "library_name" in one for one in cards)


def test_explore_without_a_run(place: Path) -> None:
    assert "Train one on the page Train" in texts(page("explore"))


def test_a_first_model_is_uploaded_and_used(place: Path, colour_model: Path, paint: Callable[..., bytes]) -> None:
    found = page("classify")
    found.file_uploader(key="model-upload").set_value(("mine.onnx", colour_model.read_bytes(), "")).run()
    assert found.selectbox(key="model").value == "mine"
    assert "3 classes of colours · 90.0\u00a0%" in texts(found)
    files = [("a.png", paint("blue"), "image/png"), ("b.png", b"\x89PNG", "image/png")]
    found.file_uploader(key="upload-0").set_value(files).run()
    assert not found.exception
    assert [one.value.partition(" ")[0] for one in found.warning] == ["b.png"]
    found.segmented_control(key="view").set_value("Table").run()
    table = next(one.proto.body for one in found.get("html") if "tt-answers" in one.proto.body)
    rows = [re.sub("<[^>]+>", "|", row).strip("|") for row in table.split("<tr>")[2:]]
    assert rows[0].startswith("a.png||blue||&gt;")
    assert rows[1].startswith("b.png||–||–||b.png ")
    assert "None" not in table


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", "0 bytes"),
        (b"PK\x03\x04", "mine.onnx"),
        (None, "'thirtytwo'"),
    ],
)
def test_invalid_model_file(place: Path, write_model: Callable[..., Path], data: bytes | None, value: str) -> None:
    if data is None:
        data = write_model(place / "foreign.onnx", metadata=None).read_bytes()
    found = page("models")
    before = set(library.uploads().folder.iterdir())
    found.file_uploader(key="model-upload").set_value(("mine.onnx", data, "")).run()
    assert "mine.onnx" in found.error[0].value
    assert value in found.error[0].value
    assert str(library.uploads().folder) not in found.error[0].value
    assert set(library.uploads().folder.iterdir()) == before


def test_a_run_directory_is_added_by_its_path(
    place: Path, finished_run: Callable[..., Path], colour_model: Path
) -> None:
    library.settings = AppSettings(models=(str(colour_model),))
    run = finished_run(place / "elsewhere" / "mine")
    found = page("models")
    found.text_input(key="model-path-text").set_value(str(place / "nothing"))
    found.button[-1].click().run()
    assert "/nothing" in found.error[0].value
    found.text_input(key="model-path-text").set_value(str(run))
    found.button[-1].click().run()
    assert [one.value.partition(" ")[0] for one in found.success] == ["mine"]
    assert found.subheader[0].value != "mine"
    assert "mine" in [one.value for one in found.subheader]


def test_paths_need_local_access(place: Path, colour_model: Path) -> None:
    library.settings = AppSettings(models=(str(colour_model),), host="0.0.0.0")
    assert not page("models").text_input
    found = page("explore")
    found.segmented_control(key="explore").set_value("A data set").run()
    found.text_input(key="data-spec").set_value(str(place))
    found.button[0].click().run()
    assert "`cifar10`" in found.error[0].value


def test_a_folder_of_images_is_shown(explorable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(explorable)
    monkeypatch.setattr(library, "settings", AppSettings())
    found = page("explore")
    assert "24 images (test)" in found.metric[0].label
    found.segmented_control(key="explore").set_value("A data set").run()
    found.text_input(key="data-spec").set_value("images")
    found.button[0].click().run()
    assert "3 classes; 12 train, 24 test images" in texts(found)
    assert found.dataframe[0].value["class"].tolist() == ["blue", "green", "red"]
    found.text_input(key="data-spec").set_value("imaged")
    found.button[0].click().run()
    assert "'images'" in found.error[0].value


def test_missing_input_of_new_classes_is_listed(
    place: Path, colour_model: Path, shade: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    library.settings = AppSettings(models=(str(colour_model),))
    found = page("fewshot")
    assert found.button[-1].disabled
    files = [(file.name, file.read_bytes(), "image/png") for file in shade(place / "a", (200, 30, 30), 5, 1)]
    found.text_input(key="name-1").set_value("one")
    found.text_input(key="name-2").set_value("one")
    found.file_uploader(key="group-files-1-0").set_value(files).run()
    assert "use the name 'one' for one class only; add images of one" in texts(found)
    found.text_input(key="name-2").set_value("two")
    found.file_uploader(key="group-files-2-0").set_value(files).run()
    assert found.button[-1].disabled
    assert "leave '0.png' in one class only" in texts(found)
    assert "“0.png” in “one” and “0.png” in “two”" in found.error[0].value


def test_a_data_set_is_read_again_when_it_is_asked_for_again(
    place: Path, shade: Callable[..., list[Path]], paint: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE", str(place / "cache"))
    for seed, name in enumerate(("cat", "dog")):
        shade(place / "few" / "train" / name, (200, 90 * seed, 30), 4, seed=seed)
        shade(place / "few" / "test" / name, (200, 90 * seed, 30), 2, seed=seed + 5)
    found = page("explore")
    found.segmented_control(key="explore").set_value("A data set").run()
    for count in (8, 9):
        found.text_input(key="data-spec").set_value("few")
        next(one for one in found.button if one.label == "Show").click().run()
        assert not found.exception
        assert f"2 classes; {count} train, 4 test images" in texts(found)
        (place / "few" / "train" / "cat" / "new.png").write_bytes(paint("grey", (12, 12)))


def test_a_model_that_was_deleted_since_the_start_stops_no_page(
    place: Path, colour_model: Path, write_model: Callable[..., Path]
) -> None:
    gone = write_model(place / "gone.onnx")
    library.settings = AppSettings(models=(str(gone), str(colour_model)))
    found = page("models")
    assert "gone" in [one.value for one in found.subheader]
    own = write_model(place / "own.onnx")
    found.text_input(key="model-path-text").set_value(str(own))
    found.button[-1].click().run()
    assert "own" in [one.value for one in found.subheader]
    entry = next(one for one in library.entries() if one.name == "gone")
    gone.unlink()
    own.unlink()
    found.run()
    assert not found.exception
    assert not {"gone", "own"} & {one.value for one in found.subheader}
    with pytest.raises(ModelFileError, match="gone"):
        library.info_of(entry)
    found = page("classify")
    assert found.selectbox(key="model").options == [library.entries()[0].name]


def test_images_whose_files_are_gone_hide_no_others(
    place: Path, colour_model: Path, write_model: Callable[..., Path], paint: Callable[..., bytes]
) -> None:
    library.settings = AppSettings(models=(str(colour_model), str(write_model(place / "other.onnx"))))
    files = [(f"{name}.png", paint(name, (50, 31)), "image/png") for name in ("red", "green", "blue")]
    found = page("classify")
    found.file_uploader(key="upload-0").set_value(files).run()
    assert not found.warning
    gone = next(one for one in found.session_state[photos.CLASSIFIED] if one.name == "green.png")
    gone.path.unlink()  # as by the cleaning of temporary folders
    for kept in (display._view, display._input):
        kept.clear()
    for view in ("Cards", "Grid", "Table"):
        found.segmented_control(key="view").set_value(view).run()
        assert not found.exception
        assert not found.error
    found.segmented_control(key="view").set_value("Cards").run()
    assert ["green.png" in one.value and "Add it again" in one.value for one in found.warning] == [True]
    assert sum("tt-card" in one.proto.body for one in found.get("html")) == 2
    entry, images = library.entries()[0], found.session_state[photos.CLASSIFIED]
    results = [prediction("red") for _ in images]
    with zipfile.ZipFile(io.BytesIO(display.as_zip(entry, images, results))) as archive:
        assert sorted(archive.namelist()) == ["blue.png", "predictions.json", "red.png"]


def test_compare_leaves_out_images_that_one_model_could_not_read() -> None:
    row = (prediction("cat"), UnreadableImage("a.png", "a.png does not exist."))
    assert list(csv.reader(io.StringIO(compare.as_csv({"x": [row[0]], "y": [row[1]]}))))[1:] == []

    def script() -> None:
        import streamlit as st

        from thirtytwo.app.views.compare import _readable
        from thirtytwo.inference.classifier import Prediction, UnreadableImage

        answer = Prediction("a.png", 4, 4, "cat", 0.9, True, (("cat", 0.9),))
        broken = UnreadableImage("a.png", "a.png does not exist.")
        kept = _readable([("image", (answer, broken)), ("image", (answer, answer))])  # type: ignore[list-item]
        st.text(len(kept))

    found = AppTest.from_function(script, default_timeout=60).run()
    assert [one.value for one in found.text] == ["1"]
    assert len(found.warning) == 1


def test_results_of_a_long_list_are_kept(
    place: Path, colour_model: Path, paint: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "_MAX_CACHED", 2)
    library.settings = AppSettings(models=(str(colour_model),))
    found = page("classify")
    files = [(f"{size}.png", paint("red", (20 + size, 20)), "image/png") for size in range(5)]
    found.file_uploader(key="upload-0").set_value(files).run()
    assert len(found.session_state[photos.RESULTS]) == 5, "else some would be classified at every click"


def predictions() -> Predictions:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.0, 0.9]], dtype=np.float32)
    return Predictions(("a", "b", "c"), np.array([0, 0, 1, 2]), probabilities, np.arange(4))


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        (PredictionFilter(None, None, WRONG, SURE), [1, 2]),
        (PredictionFilter(None, None, WRONG, UNSURE), [2, 1]),
        (PredictionFilter("a", None, ALL, UNSURE), [1, 0]),
        (PredictionFilter(None, "a", ALL, SURE), [0, 2]),
        (PredictionFilter("c", "a", ALL, SURE), []),
        (PredictionFilter(None, None, SUSPECTED, SURE), [1]),
        (PredictionFilter(None, None, ALL, SURE, " ROW 2"), [2]),
    ],
)
def test_filters(criteria: PredictionFilter, expected: list[int]) -> None:
    assert select(predictions(), criteria, suspected=[1]).tolist() == expected


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        (Criteria(), [0, 1, 2, 3]),
        (Criteria(kind=UNKNOWN), [1]),
        (Criteria(kind=UNREADABLE), [2]),
        (Criteria(kind=NOT_SURE), [3]),
        (Criteria(label="cat"), [0, 1]),
        (Criteria(least=0.7), [0, 1]),
        (Criteria(order=LEAST_SURE), [3, 1, 0, 2]),
        (Criteria(order=BY_NAME), [2, 3, 1, 0]),
        (Criteria(order=BY_CLASS), [3, 0, 1, 2]),
    ],
)
def test_results_are_filtered_and_sorted(criteria: Criteria, expected: list[int]) -> None:
    rows = [("img_10.png", "cat", 0.9, True), ("img_2.png", "cat", 0.8, False), ("img_1.png", "ant", 0.4, True)]
    results: list[Any] = [Prediction(name, 4, 4, top, sure, known, ((top, sure),)) for name, top, sure, known in rows]
    results.insert(2, UnreadableImage("a.png", "a.png is empty."))
    assert matching(results, criteria) == expected
    assert tally(results) == [("ant", 1), ("cat", 1)]


def test_classes_that_look_the_same_are_chosen_apart() -> None:
    def script() -> None:
        import streamlit as st

        from thirtytwo.app.views.drill_down import Filters
        from thirtytwo.app.views.explore import _choose_filter
        from thirtytwo.app.views.many import choose
        from thirtytwo.inference.classifier import Prediction

        names = ("any", "sweet pepper", "sweet_pepper")
        found = _choose_filter(Filters("mine"), names)
        results = [Prediction("a.png", 4, 4, name, 0.9, True, ((name, 0.9),)) for name in names]
        st.text(repr((found.true, found.predicted, choose(results).label)))

    found = AppTest.from_function(script, default_timeout=60).run()
    assert found.text[0].value == repr((None, None, None))
    for name in ("any", "sweet pepper", "sweet_pepper"):
        for key in ("true-mine", "predicted-mine", "shown-class"):
            found.selectbox(key=key).set_value(name)
        found.run()
        assert not found.exception
        assert found.text[0].value == repr((name, name, name))


def test_classes() -> None:
    rows = class_rows(predictions())
    assert rows[0] == {"class": "a", "images": 2, "recall": 0.5, "precision": 0.5, "most confused with": "b"}
    assert rows[1] == {"class": "b", "images": 1, "recall": 0.0, "precision": 0.0, "most confused with": "a"}


EVIL = '<img src=x onerror="alert(1)">'


def test_names_cannot_become_markup() -> None:
    result = Prediction("x", 1, 1, EVIL, 0.5, False, ((EVIL, 0.5),))
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    everything = [headline(result), bars(result.predictions), image_grid([(pixels, EVIL, EVIL)])]
    everything.append(matrix(np.eye(2, dtype=np.int64), [EVIL, "b"]))
    assert not any("<img src=x" in text or 'onerror="alert' in text for text in everything)


def prediction(top: str, known: bool = True) -> Prediction:
    return Prediction("a.png", 4, 4, top, 0.75, known, ((top, 0.75), ("other", 0.25)))


@pytest.mark.parametrize(
    ("known", "confidence", "badge"), [(True, 0.75, ""), (True, 0.4, "not sure"), (False, 0.9, "unknown")]
)
def test_answers_are_readable_and_say_when_the_model_is_not_sure(known: bool, confidence: float, badge: str) -> None:
    result = Prediction("x", 1, 1, "sweet_pepper", confidence, known, (("sweet_pepper", confidence),))
    for text in (headline(result), short_headline(result)):
        assert "sweet pepper" in text
        assert [word for word in ("not sure", "unknown") if word in text] == ([badge] if badge else [])
    assert "sweet pepper" in bars(result.predictions)


def test_compare_says_that_no_models_have_the_same_classes(
    place: Path, colour_model: Path, write_model: Callable[..., Path]
) -> None:
    other = write_model(place / "other.onnx", classes=("red", "green", "sea"))
    library.settings = AppSettings(models=(str(colour_model), str(other)))
    assert "These models do not know the same classes" in texts(page("compare"))
    same = write_model(place / "same.onnx", classes=("sea", "green", "red"))
    library.settings = AppSettings(models=(str(colour_model), str(other), str(same)))
    found = page("compare")
    assert "do not know the same classes" not in texts(found)
    assert found.multiselect[0].value == ["other", "same"]
    assert "No other model has the classes of" in texts(found)


def test_agreement() -> None:
    assert compare.agree([prediction("cat"), prediction("cat")])
    assert not compare.agree([prediction("cat"), prediction("dog")])
    assert not compare.agree([prediction("cat"), prediction("cat", known=False)])
    assert compare.agree([prediction("Cat"), prediction("cat")]), "models of the same classes, which may differ in case"
    rows = list(
        csv.reader(io.StringIO(compare.as_csv({"x": [prediction("cat")], "y": [prediction("dog", known=False)]})))
    )
    assert rows[1] == ["a.png", "cat", "0.75", "true", "dog", "0.75", "false", "false"]


def test_results_have_the_form_of_predict() -> None:
    results = [prediction("cat"), UnreadableImage("b.png", "b.png is empty.")]
    assert json.loads(as_json(results, 1))[0]["predictions"] == [{"class": "cat", "confidence": 0.75}]
    rows = list(csv.DictReader(io.StringIO(as_csv(results, 1))))
    assert rows[0]["class_1"] == "cat"
    assert "class_2" not in rows[0]
    assert rows[1]["error"] == "b.png is empty."


def test_repeated_file_names_get_a_number_and_the_same_image_is_added_once(paint: Callable[..., bytes]) -> None:
    files = {"a.png": "red", "b.png": "green", "A.png": "blue", "c.png": "red"}
    images = photos.merge([], [photos.from_upload(name, paint(color)) for name, color in files.items()])
    assert [one.name for one in images] == ["a.png", "b.png", "A-2.png"]
    grey = photos.from_upload("b.png", paint("grey"))
    assert [one.name for one in photos.merge(images, [grey, images[0]])] == ["b-2.png", "a.png", "b.png", "A-2.png"]


def test_images_that_are_there_already_are_named(place: Path, colour_model: Path, paint: Callable[..., bytes]) -> None:
    library.settings = AppSettings(models=(str(colour_model),))
    found = page("classify")
    files = [(name, paint(color), "image/png") for name, color in {"a.png": "red", "b.png": "red"}.items()]
    found.file_uploader(key="upload-0").set_value(files).run()
    assert "“b.png” is already there, as “a.png”: it was not added again." in texts(found)
    found.file_uploader(key="upload-1").set_value([("a.png", paint("red"), "image/png")]).run()
    assert "“a.png” is already there: it was not added again." in texts(found)
    found.run()
    assert "already there" not in texts(found)


@pytest.mark.parametrize(
    ("known", "badges"), [((True, True), ["agree"]), ((False, False), ["agree", "unknown to all"])]
)
def test_the_badge_of_an_image_says_what_is_counted(known: tuple[bool, bool], badges: list[str]) -> None:
    row = [("x", prediction("cat", known=known[0])), ("y", prediction("cat", known=known[1]))]
    agreed = compare.agree([one for _, one in row])
    html = side_by_side("a.png", np.zeros((4, 4, 3), np.uint8), row, 3, agree=agreed)
    assert re.findall(r'<span class="tt-badge[^>]*>([^<]*)<', html.partition("</figure>")[0]) == badges


def test_a_model_without_calibration_says_so(place: Path, write_model: Callable[..., Path]) -> None:
    plain = write_model(place / "plain.onnx", unknown_threshold=None)
    for name, expected in ((plain, True), (write_model(place / "calibrated.onnx"), False)):
        library.settings = AppSettings(models=(str(name),))
        for view in ("classify", "models"):
            assert ("percentages are not calibrated" in texts(page(view))) is expected, (name, view)


def test_samples_can_be_read(colour_model: Path) -> None:
    assert len(sample_files()) >= 4
    assert all(isinstance(one, Prediction) for one in load(colour_model).predict(sample_files()))


SAMPLE_ANSWERS = {"camera": "tripod", "cat": "Egyptian cat", "coffee": "espresso", "rocket": "not sure"}


@pytest.mark.long
def test_the_app_opens_on_a_model_that_names_the_samples_and_is_not_sure_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings())
    found = page("classify")
    assert found.selectbox(key="model").value == library.PREFERRED
    assert "Suits photographs of everyday things" in texts(found)
    assert "1,000 things" in texts(found)
    entry = next(one for one in library.entries() if one.name == library.PREFERRED)
    assert set(examples(entry)) <= set(library.info_of(entry).classes)
    results = [one for one in load(library.PREFERRED).predict(sample_files()) if isinstance(one, Prediction)]
    answers = {
        Path(one.file or "").stem: readable(one.top) if one.known and one.confidence >= CONFIDENT else "not sure"
        for one in results
    }
    assert answers == SAMPLE_ANSWERS


def test_a_photograph_that_is_too_large_is_explained_without_the_words_of_a_terminal(
    place: Path, colour_model: Path, paint: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    library.settings = AppSettings(models=(str(colour_model),))
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "2_000_000")
    found = page("classify")
    files = [(f"{number}.png", paint("blue", (2000, 1001 + number)), "image/png") for number in range(11)]
    for key, some in (("upload-0", files[:2]), ("upload-1", files[2:])):  # few are decoded in another way than many
        found.file_uploader(key=key).set_value(some).run()
        assert not found.exception
        said = [one.value for one in found.warning]
        assert len(said) == min(8, len(some))
        assert all("2,000,000. Save or send it smaller, with at most 2 megapixels" in one for one in said)
        assert "THIRTYTWO" not in " ".join(said)
    thumbnail = photos.from_upload("a.png", files[0][1])
    assert short(thumbnail.problem) == "too large"
    assert short(photos.from_upload("b.png", b"\x89PNG").problem) == "cannot be read"


def test_streamlit_options_are_private() -> None:
    options = streamlit_options(AppSettings(), PORT, open_browser=False)
    assert (options["server.address"], options["server.port"]) == ("127.0.0.1", PORT)
    assert options["browser.gatherUsageStats"] is False
    assert options["server.enableXsrfProtection"] is True
    assert set(options["server.allowedHosts"]) == LOOPBACK
    assert streamlit_options(AppSettings(host="0.0.0.0"), PORT, open_browser=False)["server.allowedHosts"] == []
    from streamlit import config

    known = set(config.get_config_options())
    assert not [name for name in options if name not in known], "Streamlit no longer knows this"


def test_port_in_use_is_an_error_or_skipped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[AppSettings] = []
    offline: list[str | None] = []

    def start(*_: object) -> None:
        offline.append(os.environ.get("HF_HUB_OFFLINE"))

    monkeypatch.setattr(launch.bootstrap, "run", start)
    monkeypatch.setattr(launch.bootstrap, "load_config_options", lambda _: None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError) as caught:
            launch.run(AppSettings(port=port), open_browser=False, on_start=started.append)
        monkeypatch.setattr(launch, "PORT", port)
        launch.run(AppSettings(), open_browser=False, on_start=started.append)
    assert str(port) in caught.value.message
    assert "--port" in str(caught.value.fix)
    assert len(started) == 1
    assert port < (started[0].port or 0) <= port + 20
    assert (offline, os.environ.get("HF_HUB_OFFLINE")) == (["1"], None), "for as long as the app runs"


@pytest.mark.parametrize(("model", "kind"), [("cifra10", UnknownNameError), ("gone/model.onnx", ModelFileError)])
def test_missing_model_is_an_error_before_the_start(place: Path, model: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        launch.run(AppSettings(models=(model,)), open_browser=False, on_start=print)


def test_invalid_model_file_is_an_error_before_the_start(place: Path) -> None:
    Path("notes.onnx").write_text("bread, milk")
    with pytest.raises(ModelFileError, match=r"notes\.onnx"):
        launch.run(AppSettings(models=("notes.onnx",)), open_browser=False, on_start=print)


@pytest.mark.slow
def test_the_app_needs_no_pytorch(place: Path, colour_model: Path) -> None:
    code = f"""
import sys
from streamlit.testing.v1 import AppTest
from thirtytwo.app import library
from thirtytwo.app.settings import AppSettings
library.settings = AppSettings(models=({str(colour_model)!r},))
found = AppTest.from_file({str(MAIN)!r}, default_timeout=60).run()
assert not found.exception, found.exception
assert found.title[0].value == "Classify images"
print(sorted({{"torch", "matplotlib", "sklearn", "scipy", "onnx"}} & set(sys.modules)))
"""
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_uploads_keep_the_order_in_which_they_were_chosen(paint: Callable[..., bytes]) -> None:
    def script() -> None:
        from thirtytwo.app.images import image_input

        image_input()

    found = AppTest.from_function(script, default_timeout=60).run()
    names = [f"{number:02}.png" for number in range(20)]
    files = [(name, paint("red", (20 + number, 20)), "image/png") for number, name in enumerate(names)]
    found.file_uploader(key="upload-0").set_value(files).run()
    assert not found.exception
    assert [one.name for one in found.session_state[photos.CLASSIFIED]] == names


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")
@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("models", "metrics.json", "metrics.json cannot be read"),
        ("models", "README.md", "README.md cannot be read"),
        ("explore", "environment.json", "environment.json cannot be read"),
        ("explore", "predictions-test.parquet", "predictions-test.parquet cannot be read"),
    ],
)
def test_a_file_of_a_run_that_may_not_be_read_stops_no_page(
    name: str, file: str, said: str, place: Path, unprivileged: Path, finished_run: Callable[..., Path]
) -> None:
    os.chdir(unprivileged)  # from `place`, which leads back
    run = finished_run(unprivileged / "runs" / "mine")
    (run / "README.md").write_text("# Mine")
    (run / file).chmod(0)
    found = page(name)
    shown = [texts(found), *(one.proto.body for one in found.get("html"))]
    assert any(said in one.replace("\\", "") for one in shown)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
@pytest.mark.parametrize("name", ["models", "explore"])
def test_a_run_whose_name_is_no_text_stops_no_page(name: str, place: Path, finished_run: Callable[..., Path]) -> None:
    finished_run(place / "runs" / "mine")
    shutil.copytree(place / "runs" / "mine", place / "runs" / os.fsdecode(b"na\xefve"))
    found = page(name)
    assert "mine" in texts(found) + " ".join(option for one in found.selectbox for option in one.options)
