from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from thirtytwo.errors import RunError
from thirtytwo.run_state import RunState


def test_an_unfinished_run_names_the_command_that_continues_it(tmp_path: Path) -> None:
    run = RunState(tmp_path)
    assert f"--resume --run {run.path}" in run.resume_hint()


@pytest.mark.parametrize(
    ("record", "recorded"),
    [(None, "DATA"), ("{damaged", "DATA"), ("{}", "DATA"), ('{"data": {"spec": "my images"}}', "my images")],
)
def test_the_command_that_continues_a_run_is_quoted(tmp_path: Path, record: str | None, recorded: str) -> None:
    run = RunState(tmp_path / "my runs" / "it's")
    run.path.mkdir(parents=True)
    if record is not None:
        run.environment.write_text(record, encoding="utf-8")
    plain = ["thirtytwo", "train", recorded, "--resume", "--run", str(run.path)]
    assert shlex.split(run.resume_command()) == plain
    assert shlex.split(run.resume_hint().partition(": ")[2]) == plain
    given = shlex.split(run.resume_command("new images", tmp_path / "all data"))
    assert given == [*plain[:2], "new images", *plain[3:], "--data-root", str(tmp_path / "all data")]


def test_weights_are_not_replaced_by_training_from_the_start(tmp_path: Path) -> None:
    run = RunState(tmp_path)
    run.weights.write_bytes(b"kept")
    with pytest.raises(RunError, match=r"is trained, but environment.json is missing") as caught:
        run.check_resumable()
    assert "--resume" not in (caught.value.fix or "")
    assert "--resume" not in run.restore_hint_for(run.metrics, "W")
    run.checkpoints.mkdir()
    (run.checkpoints / "last.ckpt").touch()
    run.check_resumable()
