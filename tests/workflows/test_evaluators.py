"""An evaluator is one class: its result, its section and its option appear everywhere without other changes."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thirtytwo import evaluation
from thirtytwo.cli.main import run_command
from thirtytwo.errors import ThirtytwoError
from thirtytwo.evaluation.evaluators import EVALUATORS, Context, Evaluator, Option, Results, evaluators
from thirtytwo.evaluation.sections import Cell, Section, Table
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.evaluate import evaluate
from thirtytwo.workflows.report import write_report
from thirtytwo.workflows.train import train


class Confident(Evaluator):
    key, title = "sixth", "Confident <images>"
    options = (Option("sixth", float, None, "Also count images with this confidence.", "SHARE"),)

    def measure(self, context: Context) -> dict[str, Any]:
        return {"count": int((context.predictions.confidence >= context.options["sixth"]).sum())}

    def describe(self, record: Mapping[str, Any], split: str) -> Section:
        return Section(
            ("Many are *sure*.",), (Table(("Kind", "Images"), ((Cell("sure"), Cell(f"{record['count']}")),)),)
        )


@pytest.fixture
def registered() -> Iterator[None]:
    EVALUATORS.register(Confident.key)(Confident())
    yield
    del EVALUATORS._entries[Confident.key]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    place = tmp_path_factory.mktemp("runs")
    settings = {"overrides": dict(tiny.overrides), "device": "cpu", "show": False}
    return train(str(tiny.folder(place / "data", 90)), run=place / "run", epochs=1, **settings).path


@pytest.mark.long
@pytest.mark.usefixtures("registered")
def test_a_sixth_evaluator_appears_everywhere(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(Path(shutil.copytree(trained, tmp_path / "run")))
    assert run_command(["evaluate", "--help"]) == 0
    assert "--sixth" in capsys.readouterr().out
    assert run_command(["evaluate", str(run.path), "--sixth", "0", "--device", "cpu"]) == 0
    assert "sure" in capsys.readouterr().out
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    assert metrics["sixth"] == {"count": metrics["n"]}
    page, card = run.report.read_text(encoding="utf-8"), run.card.read_text(encoding="utf-8")
    assert 'href="#sixth"' in page
    assert "Confident &lt;images&gt;" in page
    assert "Confident &lt;images&gt;" in card
    assert r"\*sure\*" in card
    evaluate(run.path, device="cpu", show=False)
    assert run.read_json(run.metrics)["sixth"] == metrics["sixth"], "kept where it is not measured again"


def test_a_broken_evaluator_is_refused_before_the_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: SimpleNamespace
) -> None:
    broken = EntryPoint("broken", "no_such_package:Broken", "thirtytwo.evaluators")
    monkeypatch.setattr(EVALUATORS, "_plugins", {"broken": broken})
    settings = {"overrides": dict(tiny.overrides), "device": "cpu", "show": False}
    with pytest.raises(ThirtytwoError, match="no_such_package"):
        train(str(tmp_path / "missing"), run=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


class Counting(Confident):
    key, store = "counting", "nothing"
    reads = 0

    def read(self, results: Results) -> None:
        Counting.reads += 1


def test_report_and_card_compute_results_once(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(Path(shutil.copytree(trained, tmp_path / "run")))
    monkeypatch.setitem(EVALUATORS._entries, Counting.key, Counting())
    monkeypatch.setattr(Counting, "reads", 0)
    write_report(run.path, images=False)
    assert Counting.reads == 1


def test_unknown_options_are_refused(trained: Path) -> None:
    with pytest.raises(TypeError):
        evaluate(trained, no_such_option=0.5, device="cpu", show=False)


def test_evaluators_of_thirtytwo() -> None:
    assert [(one.key, one.default, one.store) for one in evaluators()][:5] == [
        ("calibration", True, "metrics"),
        ("conformal", False, "metrics"),
        ("unknown", True, "metrics"),
        ("corruptions", False, "file"),
        ("label_issues", False, "nothing"),
    ]


MODULE = """
from thirtytwo.evaluation.evaluators import Evaluator, register
from thirtytwo.evaluation.sections import Section

@register
class Found(Evaluator):
    key, title, order = "found", "Found", 1.5

    def measure(self, context):
        return {}

    def describe(self, record, split):
        return Section()
"""


def test_a_module_of_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.setattr(evaluation, "__path__", [*evaluation.__path__, str(tmp_path)])
    try:
        assert [one.key for one in evaluators()][:3] == ["calibration", "found", "conformal"]
    finally:
        EVALUATORS._entries.pop("found", None)
        sys.modules.pop("thirtytwo.evaluation.found_here", None)


def test_the_function_has_the_defaults_of_the_options() -> None:
    parameters = inspect.signature(evaluate).parameters
    options = [option for evaluator in evaluators() for option in evaluator.options]
    assert {option.name: parameters[option.name].default for option in options} == {
        option.name: option.default for option in options
    }


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, ["calibration"]),
        ({"coverage": 0.0, "ood": ()}, ["calibration", "conformal"]),
        ({"ood": ("digits",), "corruptions": True}, ["calibration", "unknown", "corruptions"]),
        ({"corruptions": False, "corruption_images": 10}, ["calibration"]),
    ],
)
def test_options_request_evaluators(options: dict[str, Any], keys: list[str]) -> None:
    assert [one.key for one in evaluators() if one.requested(options)] == keys
