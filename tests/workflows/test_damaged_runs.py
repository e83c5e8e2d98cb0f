"""Files of a run that are valid JSON but of the wrong shape: one sentence that names the file, never a traceback."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from thirtytwo.cli.main import run_command
from thirtytwo.data.run_data import find_again, load_as_stored, recorded_hashes, trained_on
from thirtytwo.data.types import DataSet
from thirtytwo.errors import RunError, ThirtytwoError
from thirtytwo.report.run_record import read_run_record, typed_commands
from thirtytwo.report.seeds import run_path, summarize
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.loading import load_run
from thirtytwo.workflows.members import member_record
from thirtytwo.workflows.provenance import selections
from thirtytwo.workflows.records import first_session_record, matches_data
from thirtytwo.workflows.train import train

CASES = 200
FILES = ("environment.json", "split.json", "metrics.json")


@pytest.fixture(scope="module")
def finished(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on digits."""
    settings = {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 2}
    path = tmp_path_factory.mktemp("runs") / "digits"
    train("digits", recipe="digits", overrides=settings, limit_train=60, run=path, show=False)
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(finished, tmp_path / "digits")))


def read_everything(run: RunDir, digits: DataSet) -> None:
    """Read a run's files as all commands do, without training or drawing."""
    record = read_run_record(run)
    _ = record.sections, record.origins, record.superclasses, record.classes, record.interrupted
    typed_commands(run)
    loaded = load_run(run)
    member_record(loaded, kept=True)
    selections(loaded.recipe, loaded.environment)
    recorded_hashes(run, "val")
    trained_on(run)
    find_again(run, digits)
    matches_data(run, "digits")
    first_session_record(run, {"choices": []})


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values, of long lists only of the first two."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


WRONG: tuple[Any, ...] = (None, 1, -1, 2.5, True, "", "x", [], [None], {}, {"a": [1, None]}, 10**400, "\ud800")


def mutate(content: Any, random: np.random.Generator) -> Any:
    """The content with one value replaced or deleted."""
    content = copy.deepcopy(content)
    found = places(content)
    place = found[int(random.integers(len(found)))]
    wrong = WRONG[int(random.integers(len(WRONG)))]
    if not place:
        return wrong
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    if random.random() < 0.3:
        del parent[place[-1]]
    else:
        parent[place[-1]] = wrong
    return content


@pytest.mark.long
@pytest.mark.parametrize("file", FILES)
def test_any_wrong_value_is_an_error_of_ours(file: str, run: RunDir) -> None:
    """Seeded: each of these files with one wrong value is read, or refused with an error that names it."""
    content = json.loads((run.path / file).read_text(encoding="utf-8"))
    random = np.random.default_rng(FILES.index(file))
    digits = load_as_stored(run, "digits", image_size=16)
    refused = 0
    for _ in range(CASES):
        wrong = mutate(content, random)
        (run.path / file).write_text(json.dumps(wrong), encoding="utf-8")
        try:
            read_everything(run, digits)
        except ThirtytwoError:
            refused += 1
    assert refused > CASES // 5


COMMANDS: dict[str, Callable[[RunDir], list[str]]] = {
    "evaluate": lambda run: ["evaluate", str(run.path)],
    "report": lambda run: ["report", str(run.path)],
    "ensemble": lambda run: ["ensemble", str(run.path), str(run.path), "--run", str(run.path.with_name("both"))],
    "export": lambda run: ["export", str(run.path), "--format", "onnx-int8"],
    "compare": lambda run: ["compare", str(run.path), str(run.path.with_name("other"))],
    "resume": lambda run: ["train", "digits", "--resume", "--run", str(run.path)],
}


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", ['{"a": [1, null]}', "[" * 100_000], ids=["other keys", "deep"])
def test_commands_name_the_damaged_file(
    command: str, file: str, content: str, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "compare":
        shutil.copytree(run.path, run.path.with_name("other"))
    if command == "resume":
        run.onnx.unlink()
        run.report.unlink()
    (run.path / file).write_text(content, encoding="utf-8")
    code = run_command(COMMANDS[command](run))
    output = capsys.readouterr()
    assert code in (0, 2), output.err
    assert "Traceback" not in output.err
    if code == 2:
        assert output.err.count("\n") <= 12


def test_advice_for_damaged_metrics_works(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.metrics.write_text('{"a": [1, null]}', encoding="utf-8")
    assert run_command(["evaluate", str(run.path)]) == 2
    error = capsys.readouterr().err
    assert f"Move it away and write it again with: thirtytwo evaluate {run.path}" in error
    run.metrics.unlink()
    assert run_command(["evaluate", str(run.path)]) == 0
    assert run.read_json(run.metrics)["split"] == "test"


@pytest.mark.parametrize(
    "content",
    [{}, {"a": [1, None]}, [1], {"state_dict": {}}, {"state_dict": {"net.x": torch.zeros(1)}, "epoch": 0}],
    ids=["empty", "other keys", "list", "no weights", "other weights"],
)
@pytest.mark.slow
def test_checkpoint_without_its_keys(content: Any, run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run.onnx, run.report, run.metrics):
        path.unlink()
    torch.save(content, run.checkpoints / "last.ckpt")
    assert run_command(["train", "digits", "--resume", "--run", str(run.path)]) == 2
    assert "last.ckpt" in capsys.readouterr().err


def test_summary_of_seeds_of_the_wrong_shape(run: RunDir) -> None:
    moved = run_path(run.path.with_name("seeds"), "seed", 0)
    shutil.move(run.path, moved)
    RunDir(moved).metrics.write_text('{"a": [1, null]}', encoding="utf-8")
    with pytest.raises(ThirtytwoError):
        summarize(run.path.with_name("seeds"), "digits", [0], {})


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_place_of_a_file_is_refused(name: str, run: RunDir) -> None:
    """Opening a named pipe would wait for a writer."""
    (run.path / name).unlink()
    os.mkfifo(run.path / name)
    with pytest.raises(RunError) as caught:
        run.read_json(run.path / name)
    assert str(run.path / name) in caught.value.message
