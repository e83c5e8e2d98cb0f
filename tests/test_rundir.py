from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.settings import parse_settings
from thirtytwo.errors import RunError
from thirtytwo.rundir import RunDir, lock_run_of

RECIPE = parse_settings(Recipe, {"name": "own", "model": {"name": "net"}, "data": {"keep_together": "copies"}}, "test")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir.create(tmp_path / "run")
    run.write_recipe(RECIPE, head="accuracy 0.93\nby hand")
    return run


@pytest.mark.parametrize("existing", [False, True])
def test_a_new_or_empty_directory_is_taken(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "deep" / "run"
    if existing:
        path.mkdir(parents=True)
    assert RunDir.create(path).path.is_dir()


def test_a_used_directory_names_both_ways_out(run: RunDir) -> None:
    with pytest.raises(RunError) as caught:
        RunDir.create(run.path)
    assert str(run.path) in caught.value.message
    assert "--resume" in str(caught.value)
    assert "--run" in str(caught.value)


@pytest.mark.parametrize("below", ["", "inside"])
def test_a_file_is_no_place_for_a_run(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="--run"):
        RunDir.create(tmp_path / "file" / below)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "There is no run directory"),
        ("empty", "is not a run directory: it has no recipe.toml"),
        ("alone.onnx", r"is a model file, not a run directory.*thirtytwo predict IMAGES --model .*alone\.onnx"),
        ("my run/model.onnx", "is a model file, not a run directory.*Give the directory of its run: '.*/my run'"),
        ("notes.txt", "is a file, not a run directory"),
    ],
)
def test_open_rejects_other_directories(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone.onnx").touch()
    (tmp_path / "notes.txt").touch()
    trained = RunDir.create(tmp_path / "my run")
    trained.recipe.touch()
    (trained.path / "model.onnx").touch()
    with pytest.raises(RunError) as caught:
        RunDir.open(tmp_path / name)
    assert re.search(message, str(caught.value), re.DOTALL)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = RunDir.create(Path("~/runs/one"))
    assert made.path == tmp_path / "home" / "runs" / "one"
    made.recipe.write_text("")
    assert RunDir.open("~/runs/one").path == made.path
    with pytest.raises(RunError):
        RunDir.refuse_used(Path("~/runs/one"))
    with RunDir.create_locked("~/runs/two", Path("other")) as locked:
        assert locked.path == tmp_path / "home" / "runs" / "two"
        (locked.path / "kept").touch()
    assert not Path("~").exists()


def test_recipe_comes_back_under_its_head(run: RunDir) -> None:
    assert run.recipe.read_text(encoding="utf-8").startswith("# accuracy 0.93\n# by hand\n")
    assert RunDir.open(run.path).read_recipe() == RECIPE


SPLIT = {"seed": 1, "n_val": 0, "test_evaluations": 0, "more": None}


def test_json_comes_back(run: RunDir) -> None:
    run.write_json(run.split, SPLIT)
    assert run.read_json(run.split) == SPLIT


PART = {"hashes": ["a"], "rows": [0]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (SPLIT | {"train": PART}, "images of one of the splits"),
        (SPLIT | dict.fromkeys(("train", "val", "test"), PART | {"rows": [0, 1]}), "different lengths"),
    ],
)
def test_json_that_contradicts_itself_is_named(run: RunDir, content: dict[str, Any], reason: str) -> None:
    run.write_json(run.split, content)
    with pytest.raises(RunError, match=reason) as caught:
        run.read_json(run.split)
    assert "value error" not in caught.value.message.casefold()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no metrics.json.*--resume"), (b"{", "is damaged"), (b"\xff", "is damaged")],
)
def test_missing_or_damaged_json_is_named(run: RunDir, content: bytes | None, message: str) -> None:
    if content is not None:
        run.metrics.write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        run.read_json(run.metrics)
    assert str(run.path) in str(caught.value)


def test_history_comes_back_without_empty_cells(run: RunDir) -> None:
    assert run.read_history() == []
    run.write_history(
        [{"epoch": 1, "train_loss": 2.5}, {"epoch": 2, "train_loss": 1.25, "val_loss": 3}],
        ["epoch", "train_loss", "val_loss"],
    )
    assert run.history.read_text(encoding="utf-8") == "epoch,train_loss,val_loss\n1,2.5,\n2,1.25,3\n"
    assert run.read_history() == [{"epoch": 1, "train_loss": 2.5}, {"epoch": 2, "train_loss": 1.25, "val_loss": 3}]


@pytest.mark.parametrize("content", [b"epoch\none\n", b"epoch\n1,2\n", b"epoch\n\xff\n"])
def test_damaged_history_is_named(run: RunDir, content: bytes) -> None:
    run.history.write_bytes(content)
    with pytest.raises(RunError, match=r"history.csv is damaged"):
        run.read_history()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")
@pytest.mark.parametrize("read", [lambda run: run.read_json(run.metrics), RunDir.read_history])
def test_files_without_permission_are_named(unprivileged: Path, read: Callable[[RunDir], object]) -> None:
    run = RunDir(unprivileged)
    for path in (run.metrics, run.history):
        path.write_text("{}")
        path.chmod(0)
    with pytest.raises(RunError, match="cannot be read: Permission denied"):
        read(run)


def test_class_means_come_back(run: RunDir) -> None:
    means = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"class_means": means}, run.class_means)
    np.testing.assert_array_equal(run.read_class_means(), means)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_missing_or_damaged_class_means_are_named(run: RunDir, content: bytes | None) -> None:
    if content is not None:
        run.class_means.write_bytes(content)
    with pytest.raises(RunError) as caught:
        run.read_class_means()
    assert str(run.class_means) in caught.value.message


def test_the_command_that_evaluates_a_run_is_quoted(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "my runs")
    with pytest.raises(RunError) as caught:
        run.read_predictions("val")
    words = shlex.split((caught.value.fix or "").partition(": ")[2])
    assert words == ["thirtytwo", "evaluate", str(run.path), "--split", "val"]


def test_class_means_in_a_directory_whose_name_is_not_utf8(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / os.fsdecode(b"K\xe4fer"))
    run.class_means.write_bytes(save({"class_means": np.ones((3, 4), dtype=np.float32)}))
    assert run.read_class_means().shape == (3, 4)


def test_a_folder_with_a_recipe_of_its_own_is_not_a_run_to_lock(tmp_path: Path) -> None:
    """Other commands write into a project that holds a recipe at the same time."""
    (tmp_path / "recipe.toml").write_text('name = "mine"\n', encoding="utf-8")
    with lock_run_of(tmp_path / "explained"):
        assert not (tmp_path / ".lock").exists()
    (tmp_path / "environment.json").write_text("{}", encoding="utf-8")
    with lock_run_of(tmp_path / "explained"):
        assert (tmp_path / ".lock").exists()


def test_a_run_that_was_interrupted_while_it_wrote_its_last_files_is_not_finished(
    finished_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = RunDir(finished_run(tmp_path / "run"))
    for missing in run._missing():
        (run.path / missing).touch()
    assert run.is_finished()
    run.write_json(run.environment, run.read_json(run.environment) | {"interrupted": True})
    assert not run.is_finished()
