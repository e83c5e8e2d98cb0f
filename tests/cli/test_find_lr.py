"""Output of `thirtytwo train --find-lr`."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.config.resolve import parse_overrides

SMALL = ["--set", "train.threads=1", "--set", "train.precision=float32", "--device", "cpu", "--limit-train", "200"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ([], ["optimizer.lr", "optimizer.lr_rest", "optimizer.lr_head"]),
        (["--set", "optimizer.name=adamw", "--set", "optimizer.lr=0.01"], ["optimizer.lr"]),
    ],
)
def test_settings_are_the_last_line(
    arguments: list[str],
    keys: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run_command(["train", "digits", "--recipe", "digits", "--find-lr", *SMALL, *arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["optimizer.lr", "loss"]
    settings = shlex.split(lines[-1])
    assert settings[::2] == ["--set"] * len(keys)
    overrides = parse_overrides(settings[1::2])
    assert list(overrides) == keys
    assert all(isinstance(value, int | float) and value > 0 for value in overrides.values())
    if len(keys) == 3:
        assert overrides["optimizer.lr_head"] / overrides["optimizer.lr"] == pytest.approx(0.67 / 0.24, rel=0.1)
    assert lines[-1].split()[1].partition("=")[2] in err, "the suggested learning rate"
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize("more", [["--run", "x"], ["--epochs", "3"], ["--seeds", "0,1"], ["--repeat", "2"]])
def test_run_options_are_errors(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if more[0] == "--run":
        Path("x").mkdir()
        Path("x/notes.txt").write_text("mine")
    assert run_command(["train", "digits", "--find-lr", *more]) == 2
    assert "--find-lr writes no run" in capsys.readouterr().err
