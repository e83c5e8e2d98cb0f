"""Paths that cannot be read, or cannot exist, end every command with one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from thirtytwo.cli.main import run_command

LONG = "q" * 300
READERS: dict[str, list[str]] = {
    "data": ["train", "PLACE"],
    "table": ["train", "PLACE.csv"],
    "recipe": ["train", "SET", "--recipe", "PLACE.toml"],
    "weights": ["train", "SET", "--pretrained", "PLACE.safetensors"],
    "weights of a run": ["train", "SET", "--pretrained", "PLACE/x"],
    "fixes": ["train", "SET", "--apply", "PLACE.csv"],
    "run": ["train", "SET", "--run", "PLACE/x"],
    "resumed": ["train", "SET", "--resume", "--run", "PLACE"],
    "resumed seeds": ["train", "SET", "--resume", "--seeds", "0,1", "--run", "PLACE"],
    "space": ["tune", "SET", "--space", "PLACE.toml", "--run", "tuned"],
    "tuning": ["tune", "SET", "--resume", "--run", "PLACE"],
    "evaluate": ["evaluate", "PLACE"],
    "report": ["report", "PLACE"],
    "compare": ["compare", "PLACE", "PLACE/x"],
    "compare to": ["compare", "a", "b", "--out", "PLACE/x"],
    "ensemble": ["ensemble", "PLACE", "PLACE/x"],
    "export": ["export", "PLACE", "--format", "onnx-int8"],
    "predict": ["predict", "PLACE/x.png", "--model", "MODEL"],
    "predict a folder": ["predict", "PLACE", "--model", "MODEL"],
    "predict a list": ["predict", "@PLACE/list.txt", "--model", "MODEL"],
    "model": ["predict", "SET", "--model", "PLACE"],
    "model file": ["predict", "SET", "--model", "PLACE/model.onnx"],
    "predict to": ["predict", "SET", "--model", "MODEL", "--out", "PLACE/x.json"],
    "explain": ["explain", "PLACE", "--model", "MODEL"],
    "explain to": ["explain", "SET", "--model", "MODEL", "--out", "PLACE/x"],
    "teach": ["teach", "PLACE", "--out", "new.onnx"],
    "teach to": ["teach", "SET", "--out", "PLACE/new.onnx"],
    "base": ["teach", "SET", "--base", "PLACE/m.onnx", "--out", "new.onnx"],
    "show": ["data", "show", "PLACE"],
    "show to": ["data", "show", "SET", "--html", "PLACE/x.html"],
    "sheet": ["data", "show", "SET", "--sheet", "PLACE/x.png"],
    "augmented": ["data", "show", "SET", "--recipe", "fast", "--sheet", "PLACE/x.png"],
    "doctor": ["data", "doctor", "PLACE"],
    "doctor to": ["data", "doctor", "SET", "--out", "PLACE/x.txt"],
    "plan to": ["data", "doctor", "SET", "--fix-plan", "PLACE/x.csv"],
    "predictions": ["data", "doctor", "SET", "--predictions", "PLACE/x.parquet"],
    "fix": ["data", "fix", "SET", "--plan", "PLACE.csv", "--out", "fixed"],
    "export data": ["data", "export", "PLACE", "--format", "csv", "--out", "exported"],
    "export data to": ["data", "export", "SET", "--format", "csv", "--out", "PLACE/x"],
    "data root": ["data", "show", "cifar10", "--data-root", "PLACE"],
    "serve": ["serve", "--model", "PLACE", "--port", "0"],
    "app": ["app", "--model", "PLACE/model.onnx", "--port", "0", "--no-browser"],
}
"""Command lines in which PLACE is a path."""


@pytest.fixture
def folder(unprivileged: Path, monkeypatch: pytest.MonkeyPatch, tiny: SimpleNamespace) -> Iterator[Path]:
    """A working directory with images and a folder that this user cannot read."""
    monkeypatch.chdir(unprivileged)
    monkeypatch.setenv("HOME", str(unprivileged))
    monkeypatch.setenv("THIRTYTWO_CACHE", str(unprivileged / "cache"))
    tiny.folder(unprivileged / "images", 12)
    (unprivileged / "closed").mkdir()
    (unprivileged / "closed").chmod(0)
    yield unprivileged
    (unprivileged / "closed").chmod(0o700)
    monkeypatch.undo()  # leaves the working directory before it is deleted


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    ["closed", pytest.param("closed/deeper", marks=pytest.mark.long), LONG],
    ids=["closed", "below closed", "too long"],
)
@pytest.mark.parametrize("what", READERS)
def test_one_sentence(
    what: str, place: str, folder: Path, colour_model: Path, write_model: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = write_model(folder / "model.onnx")
    words = [
        word.replace("PLACE", place).replace("SET", "images").replace("MODEL", str(model)) for word in READERS[what]
    ]
    assert run_command(words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "This is a bug" not in error


@pytest.mark.parametrize("address", [f"https://x.org/{LONG}.jpg?signature={LONG}", f"https://x.org/-{LONG}"])
def test_long_addresses(address: str, colour_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["predict", address, "--model", str(colour_model)]) == 2
    assert "curl -L -o q" in capsys.readouterr().err
