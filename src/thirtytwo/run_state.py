"""What the files of a run say about its state, and the commands that continue or restore it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from thirtytwo.errors import RunError
from thirtytwo.run_paths import RunPaths, holds_seeds


def is_special(path: Path) -> bool:
    """Whether a path is a folder or something, such as a named pipe, that cannot be read like a file."""
    return path.exists() and not path.is_file()


class RunState(RunPaths):
    """State of a run by its files: combined or trained, finished or not, and how it is continued."""

    def is_interrupted_combination(self) -> bool:
        """Whether combining runs in this directory was interrupted."""
        return self.is_combined() and not self.is_finished()

    def how_to_continue(self) -> str:
        if self.is_combined():
            return "Choose another directory with --run."
        return "Continue that run with --resume, or choose another directory with --run."

    def is_combined(self) -> bool:
        """Whether this run combines others (an ensemble or a soup); False where the record is damaged."""
        return bool(self._recorded("members"))

    def is_finished(self) -> bool:
        """Whether this run has every file that a finished one needs, and was not interrupted while it wrote them."""
        return not self._missing() and self._recorded("interrupted") is not True

    def _missing(self) -> list[str]:
        """Names of the files that this run lacks to be finished."""
        written = (self.weights, self.class_means, self.onnx, self.metrics, self.report)
        return [artifact.name for artifact in (self.environment, self.split, *written) if not artifact.is_file()]

    def check_resumable(self) -> None:
        """Check that this run can be continued.

        Raises:
            RunError: it combines other runs, or it has weights, but lacks a file and the checkpoint to write it from.
        """
        if self.is_finished():
            return
        if self.is_combined():
            raise RunError(f"{self.path} combines other runs, so it cannot be trained.", self.resume_hint())
        if self._has_weights_alone():
            lost = f"{next(iter(self._missing()), 'a complete record')} is missing"
            raise RunError(
                f"{self.path} is trained, but {lost}, and the checkpoint to write it from.",
                self.restore_hint(),
            )

    def _has_weights_alone(self) -> bool:
        """Whether training again from the start would replace the weights: they are there without a checkpoint."""
        return self.weights.is_file() and not any(self.checkpoints.glob("last.ckpt"))

    def resume_hint(self) -> str:
        """How to continue the training of this run, or to combine its members again, as a sentence for errors."""
        return f"Continue it with: {self.resume_command()}"

    def resume_command(self, data: str | None = None, data_root: Path | str | None = None) -> str:
        """The command that continues this run, quoted for a shell.

        Of a run of several seeds, it continues all of them; a combination of runs is started again.

        Args:
            data: the run's data; by default as recorded in `environment.json`, or `DATA` where it is not recorded.
            data_root: directory searched first for known data sets; left out by default.
        """
        if self.is_combined():
            return f"{self.recorded_command()} --run {shlex.quote(str(self.path))}"
        path = self.path.parent if holds_seeds(self.path.parent) else self.path
        words = ["thirtytwo", "train", data or self.recorded_data() or "DATA", "--resume", "--run", str(path)]
        words += ["--data-root", str(data_root)] if data_root is not None else []
        for name in ("devices", "nodes"):
            count = self._recorded("processes", name)
            words += [f"--{name}", str(count)] if isinstance(count, int) and count > 1 else []
        return shlex.join(words)

    def recorded_command(self) -> str | None:
        """The command that made the run; None where it is not recorded or the record is damaged."""
        return command if isinstance(command := self._recorded("command"), str) else None

    def recorded_data(self) -> str | None:
        """The data that the run was started on; None where it is not recorded or the record is damaged."""
        return spec if isinstance(spec := self._recorded("data", "spec"), str) else None

    def restore_hint_for(self, artifact: Path, start: str = "Move it away and w") -> str:
        """How to write a damaged or missing file again; `start` begins the sentence and ends in a w."""
        if artifact in (self.environment, self.split, self.weights, self.class_means):
            return self.restore_hint(start)
        if not self.onnx.is_file():
            return self.restore_hint(start) if self._has_weights_alone() else self.resume_hint()
        if artifact == self.exports:
            return "Move it away; exporting writes a new one."
        options = ["--corruptions"] if artifact == self.corruptions else []
        return f"{start}rite it again with: {shlex.join(['thirtytwo', 'evaluate', str(self.path), *options])}"

    def restore_hint(self, start: str = "Move it away and w") -> str:
        """How to write a file of this run that only training or combining writes, as a sentence for errors.

        A trained run is continued from its last checkpoint, and a combination is made again.
        """
        if self.is_combined() or any(self.checkpoints.glob("last.ckpt")):
            return f"{start}rite it again with: {self.resume_command()}"
        return "Restore it from a copy, or make the run again with another --run."

    def _recorded(self, *keys: str) -> Any:
        """A value of `environment.json`; None where it is not recorded or the file is damaged."""
        if is_special(self.environment):
            return None
        try:
            value = json.loads(self.environment.read_text(encoding="utf-8"))
            for key in keys:
                value = value[key]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return value
