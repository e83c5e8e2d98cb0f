"""What objects show in notebooks: escaped text, tables and images; and the progress bar there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import thirtytwo
from thirtytwo import progress
from thirtytwo.reprs import Html, bar, card, image, table

VOID = {"img", "br", "meta", "input"}


class Balanced(HTMLParser):
    """Fails unless every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "iframe"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def test_text_is_escaped_and_html_is_not() -> None:
    found = card("<b>title</b>", table([("<i>", 1, Html("<b>2</b>"))], ("&", "n", "")), note="<u>")
    assert "<b>title" not in found
    assert "<i>" not in found
    assert "<u>" not in found
    assert "<b>2</b>" in found
    Balanced(found)


@pytest.mark.parametrize(("share", "width"), [(0.25, "25.0%"), (-1.0, "0.0%"), (7.0, "100.0%")])
def test_bars_stay_within_bounds(share: float, width: str) -> None:
    assert f"width:{width}" in bar(share)


def test_images_have_a_description() -> None:
    assert 'alt="&quot;cat&quot;"' in image("data:x", 32, '"cat"')


@pytest.mark.slow
def test_a_data_set_shows_classes_counts_and_images() -> None:
    data = thirtytwo.load_dataset("digits")
    assert data.test is not None
    found = data._repr_html_()
    text = Balanced(found).text
    assert found.count("data:image/png;base64,") == 80
    assert f"train, {len(data.train):,}" in text
    assert f"test, {len(data.test):,}" in text


def test_a_classifier_and_a_prediction_show_themselves(colour_model: Path) -> None:
    classifier = thirtytwo.load(colour_model)
    text = Balanced(classifier._repr_html_()).text
    assert "red, green, blue" in text
    red = np.full((8, 8, 3), (250, 5, 5), dtype=np.uint8)
    prediction = classifier.predict(red)[0]
    assert isinstance(prediction, thirtytwo.inference.classifier.Prediction)
    assert "8×8 pixels: red" in Balanced(prediction._repr_html_()).text


def test_a_comparison_shows_runs_and_tests(tmp_path: Path, finished_run: Callable[..., Path]) -> None:
    runs = [finished_run(tmp_path / name, skill=skill) for name, skill in (("one", 1.0), ("two", 3.0))]
    found = thirtytwo.compare(runs, out=tmp_path / "out")
    text = Balanced(found._repr_html_()).text
    assert "2 runs on" in text
    assert "Only first correct" in text
    assert str(found.page) in text
    first, second = (run.predictions.predicted for run in found.runs)
    differing = int((first != second).sum())
    assert differing > len(found.disagreements), "images, not kinds of disagreement"
    assert f"The runs disagree on {differing} images." in text


@pytest.mark.slow
def test_a_run_shows_its_metrics(tmp_path: Path, finished_run: Callable[..., Path]) -> None:
    pytest.importorskip("torch")
    path = finished_run(tmp_path / "run", skill=1.0)
    run = thirtytwo.Run.load(str(path))
    assert Path(run) == path, "functions that take a run's path take the run"
    assert run == thirtytwo.Run(path, json.loads((path / "metrics.json").read_text()))
    text = Balanced(run._repr_html_()).text
    assert "Macro F1" in text
    assert "Most confused" in text
    assert "report.html" in text


class Handle:
    """What IPython's `display` returns: keeps what is shown."""

    def __init__(self, shown: str) -> None:
        self.shown = [shown]

    def update(self, shown: str) -> None:
        self.shown.append(shown)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """IPython as in a kernel; the outputs of its cell."""
    handles: list[Handle] = []

    def display(shown: str, *, display_id: bool) -> Handle:
        handles.append(Handle(shown))
        return handles[-1]

    shell = ModuleType("IPython")
    shell.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    page = ModuleType("IPython.display")
    page.display, page.HTML = display, str  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", page)
    return handles


def test_there_is_no_bar_where_nobody_sees_it() -> None:
    assert progress.open_bar("epoch", 10) is None
    assert list(progress.tracked([1, 2, 3], "Reading")) == [1, 2, 3]


def test_a_bar_in_a_notebook_ends_full(notebook: list[Handle]) -> None:
    found = progress.open_bar("epoch <1>", 4)
    assert found is not None
    for done in range(1, 5):
        found.update(done, title="epoch <1>", text="loss 0.5")
    found.close()
    last = notebook[0].shown[-1]
    assert 'value="1.000"' in last
    assert "loss 0.5" in last
    assert "<1>" not in last


def test_a_transient_bar_is_removed(notebook: list[Handle]) -> None:
    assert list(progress.tracked(range(3), "Reading")) == [0, 1, 2]
    assert notebook[0].shown[-1] == ""
