"""Notice that another process of the training is gone, say so in one sentence, and end the rest."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import torch

from thirtytwo.text import for_terminal
from thirtytwo.training.layout import Layout
from thirtytwo.training.processes import USER_ERROR, Processes

POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0
"""How long the training itself may take to notice the loss, before this process is ended from outside."""
NOTICE_SECONDS = 3.0
"""How long the system may take to report which process ended, after its connection closed."""
LAST_SECONDS = 60.0
"""How long the other processes may take to end after the training."""
_LOST = re.compile(
    r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|Broken pipe|Socket (closed|Timeout)|Timed out waiting"
)


class Watch:
    """Watches the processes that this one started, or the one that started it; nothing else can be seen from here."""

    def __init__(self, layout: Layout, children: Sequence[subprocess.Popen[bytes]]) -> None:
        self._layout, self._children = layout, list(children)
        self._parent = os.getppid() if layout.started_by_parent else None
        self._ended = threading.Event()
        self._processes = Processes()

    @property
    def reports(self) -> bool:
        """Whether this process reports a loss: process 0 does where it lives."""
        return self._parent is None or os.getppid() != self._parent

    def problem(self) -> str | None:
        """What happened to a watched process, or None."""
        if self._parent is not None and os.getppid() != self._parent:
            return f"process {self._layout.rank - self._layout.local_rank} of {self._layout.world_size} was ended"
        for number, child in enumerate(self._children, start=1):
            code = child.poll()
            if code:
                return f"process {self._layout.rank + number} of {self._layout.world_size} {_ending(code)}"
        return None

    def wait_for_problem(self) -> str | None:
        """What happened to a watched process, waiting shortly until it can be seen."""
        until = time.monotonic() + NOTICE_SECONDS
        while (found := self.problem()) is None and time.monotonic() < until:
            if self._parent is None and not self._children:
                return None
            time.sleep(POLL_SECONDS / 5)
        return found

    def sentence(self, problem: str) -> str:
        """The loss of a process as a sentence."""
        return f"The training ended, because {problem}."

    def follow(self, processes: Processes) -> None:
        """Watch until these processes no longer need each other, and give their advice."""
        self._processes = processes

    def start(self) -> None:
        """Watch from now on, in a thread; also while the process group is formed, which could wait for ever."""
        if self._children or self._parent is not None:
            threading.Thread(target=self._run, name="thirtytwo processes", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def message(self, problem: str) -> str:
        """The loss of a process and what to do about it."""
        return " ".join(filter(None, (self.sentence(problem), self._processes.advice())))

    def kill_others(self) -> None:
        """End the processes that this one started; they write nothing that could be damaged."""
        for child in self._children:
            with suppress(OSError):
                child.kill()
            child.wait()

    def wait_for_others(self) -> None:
        """Wait until the processes that this one started have ended after the training."""
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(LAST_SECONDS)
        self.kill_others()

    def _run(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            if self._processes.parted.is_set():
                return
            problem = self.problem()
            if problem is None:
                continue
            if self._ended.wait(GRACE_SECONDS) or self._processes.parted.is_set():
                return
            if self.reports:
                report(self.message(problem))
            self.kill_others()
            os._exit(USER_ERROR)


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error of PyTorch means that another process is gone."""
    return isinstance(error, torch.distributed.DistError) or bool(_LOST.search(str(error)))


def report(text: str) -> None:
    """Write an error of a process that cannot raise it to the user."""
    sys.stderr.write(for_terminal(f"thirtytwo: {text}") + "\n")
    sys.stderr.flush()
