"""Finding models by name or path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from thirtytwo.errors import ModelFileError, RunError, ThirtytwoError, UnknownNameError
from thirtytwo.inference import library
from thirtytwo.inference.classifier import load
from thirtytwo.inference.library import bundled_models, default_model, find_model, finished_runs


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_model: Callable[..., Path]) -> Path:
    """A working directory with an older and a newer finished run, and an unfinished one that is newest."""
    monkeypatch.chdir(tmp_path)
    for time, name in enumerate(("older", "newer", "unfinished")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.toml").write_text('name = "x"\nmodel.name = "x"\n')
        if name != "unfinished":
            model = write_model(run / "model.onnx")
            os.utime(model, (1000 + time, 1000 + time))
    return tmp_path / "runs"


def test_default_is_the_newest_finished_run(runs: Path, nothing_bundled: None) -> None:
    assert [path.parent.name for path in finished_runs()] == ["newer", "older"]
    assert default_model().parent.name == "newer"
    assert load().path == default_model()


def test_default_prefers_the_bundled_model(runs: Path, monkeypatch: pytest.MonkeyPatch, colour_model: Path) -> None:
    bundled = runs.parent / "bundled"
    bundled.mkdir()
    for name in ("another", "imagenet"):
        (bundled / f"{name}.onnx").write_bytes(colour_model.read_bytes())
    monkeypatch.setattr(library, "BUNDLED", bundled)
    assert list(bundled_models()) == ["imagenet", "another"]
    assert default_model() == bundled / "imagenet.onnx"
    assert find_model("imagenet") == bundled / "imagenet.onnx"
    with pytest.raises(UnknownNameError, match="'imagenett'.*'imagenet'"):
        find_model("imagenett")


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_folder_of_data_does_not_hide_the_bundled_model_of_its_name(
    runs: Path, monkeypatch: pytest.MonkeyPatch, colour_model: Path, inside: str
) -> None:
    bundled = runs.parent / "bundled"
    bundled.mkdir()
    (bundled / "cifar10.onnx").write_bytes(colour_model.read_bytes())
    monkeypatch.setattr(library, "BUNDLED", bundled)
    (Path("cifar10") / inside).mkdir(parents=True)
    assert find_model("cifar10") == bundled / "cifar10.onnx"
    with pytest.raises(RunError, match="cifar10"):
        find_model("./cifar10")
    with pytest.raises(RunError, match="cifar10"):
        find_model(Path("cifar10").absolute())


def test_a_run_hides_the_bundled_model_of_its_name(
    runs: Path, monkeypatch: pytest.MonkeyPatch, colour_model: Path
) -> None:
    bundled = runs.parent / "bundled"
    bundled.mkdir()
    (bundled / "older.onnx").write_bytes(colour_model.read_bytes())
    monkeypatch.setattr(library, "BUNDLED", bundled)
    monkeypatch.chdir("runs")
    assert find_model("older") == Path("older/model.onnx")
    monkeypatch.chdir(runs.parent)
    Path("older").mkdir()
    (Path("older") / "recipe.toml").write_text("")  # whose training did not finish
    with pytest.raises(RunError, match="older"):
        find_model("older")


def test_an_empty_name_of_a_model_is_named() -> None:
    with pytest.raises(UnknownNameError, match="empty"):
        find_model("")


def test_run_directory_resolves_to_its_model(runs: Path) -> None:
    assert find_model(runs / "older") == runs / "older" / "model.onnx"
    assert find_model("runs/older") == Path("runs/older/model.onnx")


def test_home_is_expanded(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(runs.parent))
    assert find_model("~/runs/older") == runs / "older" / "model.onnx"
    assert load("~/runs/newer/model.onnx").path == runs / "newer" / "model.onnx"


@pytest.mark.parametrize(
    ("name", "kind", "pattern"),
    [
        ("nosuch", UnknownNameError, "'nosuch'"),
        ("nosuch.onnx", ModelFileError, "'nosuch.onnx'"),
        ("runs/nosuch", ModelFileError, "'runs/nosuch'"),
        ("runs/unfinished", RunError, "unfinished.*model.onnx"),
        ("runs", RunError, "runs"),
    ],
)
def test_unknown_models(
    runs: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[ThirtytwoError], pattern: str
) -> None:
    monkeypatch.setattr(library, "BUNDLED", runs / "none")
    with pytest.raises(kind, match=pattern) as caught:
        find_model(name)
    assert caught.value.fix


def test_no_model_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "BUNDLED", tmp_path)
    with pytest.raises(ModelFileError, match="thirtytwo train cifar10"):
        default_model()
