"""Training on the images that a CSV file lists, and evaluating the run again."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.errors import ThirtytwoError


@pytest.fixture
def table(tiny: SimpleNamespace, tmp_path: Path) -> Path:
    """A CSV file beside a folder of 60 images; a fifth of them are test images."""
    files = sorted(tiny.folder(tmp_path / "set" / "images", 60).rglob("*.png"))
    lines = ["file;label;split"]
    for number, file in enumerate(files):
        split = "test" if number % 5 == 0 else "train"
        lines.append(f"{file.relative_to(tmp_path / 'set')};{file.parent.name};{split}")
    (tmp_path / "set" / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "set" / "labels.csv"


@pytest.mark.long
def test_a_run_on_a_csv_file_is_evaluated_again(table: Path, tiny: SimpleNamespace, tmp_path: Path) -> None:
    run = thirtytwo.train(str(table), recipe="fast", run=tmp_path / "run", overrides=tiny.overrides, show=False)
    assert run.metrics["n"] == 12
    assert thirtytwo.load(run.path).classes == ("class 0", "class 1", "class 2")
    again = thirtytwo.evaluate(run.path, split="test")
    assert again["accuracy"] == run.metrics["accuracy"]
    assert run_command(["data", "doctor", str(table), "--fail-on", "never"]) == 0
    assert run_command(["data", "show", str(table)]) == 0


@pytest.mark.long
def test_images_that_are_gone_are_named_on_evaluation(table: Path, tiny: SimpleNamespace, tmp_path: Path) -> None:
    run = thirtytwo.train(str(table), recipe="fast", run=tmp_path / "run", overrides=tiny.overrides, show=False)
    shutil.rmtree(table.parent / "images" / "class 1")
    with pytest.raises(ThirtytwoError, match=r"class 1"):
        thirtytwo.evaluate(run.path, split="test")
