"""SIGTERM, as schedulers and containers send it, ends a command like Ctrl-C: with a message, and resumable."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.process import interrupted_by_sigterm


@pytest.mark.long
def test_sigterm_while_the_report_is_written(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import thirtytwo.workflows.finish as finishing

    write = finishing.write_pages

    def stopped(*values: object, **named: object) -> None:
        monkeypatch.setattr(finishing, "write_pages", write)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(finishing, "write_pages", stopped)
    run = tmp_path / "run"
    changes = {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 1, "model.options": None}
    given = [f"{key}={value}" for key, value in changes.items() if value is not None]
    command = ["train", "digits", "--recipe", "digits", "--limit-train", "60", "--run", str(run)]
    for text in given:
        command += ["--set", text.replace("=float32", "='float32'")]
    assert run_command(command) == 130
    error = capsys.readouterr().err
    assert f"Resume with: thirtytwo train digits --resume --run {run}" in error
    assert not list(run.rglob(".*")), "no temporary file is left"
    assert run_command(["train", "digits", "--resume", "--run", str(run)]) == 0
    assert (run / "report.html").is_file()


def test_the_handler_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
