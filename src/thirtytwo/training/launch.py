"""Start the processes of a training, or join those that torchrun or SLURM started.

Lightning detects what started this process and starts further ones itself where nothing did. Before they train, the
processes meet at the address of process 0, so that those that do not fit together are refused in one sentence.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from thirtytwo.errors import DivergedError, ProcessError, RunError, ThirtytwoError
from thirtytwo.process import environment, quiet_loggers
from thirtytwo.progress import hidden
from thirtytwo.text import first_line
from thirtytwo.training.layout import INTERRUPTED, PARENT, Layout, find_layout
from thirtytwo.training.meeting import meet
from thirtytwo.training.processes import USER_ERROR, Processes, using
from thirtytwo.training.watch import Watch, is_lost_connection, report

CHANGED = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Environment variables that Lightning sets; restored at the end."""
CONTROL_TIMEOUT = timedelta(days=7)
"""How long processes wait for one that reads data."""


@contextmanager
def joined(devices: int | None, nodes: int | None, device: str, log: Callable[[str], None]) -> Iterator[Processes]:
    """Be one of the processes of a training while the block runs; others are started where nothing else does so.

    The block of process 0 is the training. Errors of the block end all processes; where process 0 reports them, the
    others end silently.

    Args:
        devices: processes on each machine, one for each GPU; None: as many as were started, or 1.
        nodes: number of machines; None: as many as were started on, or 1.
        device: `auto`, `cpu`, `cuda` or `mps`.
        log: logs what process 0 waits for.

    Raises:
        ProcessError: the processes do not fit together or with this machine, or one of them ended unexpectedly.
        SystemExit: this is not process 0, and the training ended.
    """
    layout = find_layout(devices, nodes, device)
    if layout is None:
        with using(Processes()) as single:
            yield single
        return
    with ExitStack() as stack:
        for name in CHANGED:
            stack.enter_context(environment(name, os.environ.get(name)))
        if layout.rank:
            stack.enter_context(_silent())
        launcher = _start_others(layout)
        watch = Watch(layout, launcher.procs if launcher else ())
        try:
            watch.start()
            stack.enter_context(_group(layout, log, watch))
            processes = _processes_of(layout)
            stack.enter_context(using(processes))
            watch.follow(processes)
            with _ending_others(processes, watch):
                yield processes
        except BaseException as error:
            if isinstance(error, SystemExit) and not error.code:
                watch.wait_for_others()
            else:
                watch.kill_others()
            raise
        finally:
            watch.stop()
        watch.wait_for_others()


def _start_others(layout: Layout) -> _SubprocessScriptLauncher | None:
    """Start the other processes of this machine, where this process does; Lightning runs the same command for each."""
    if layout.started_by_parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the others
    if not layout.starts_others:
        return None
    launcher = _SubprocessScriptLauncher(layout.environment, layout.devices, layout.nodes)
    with environment(PARENT, str(os.getpid())):
        launcher._call_children_scripts()
    return launcher


@contextmanager
def _group(layout: Layout, log: Callable[[str], None], watch: Watch) -> Iterator[None]:
    """Meet the other processes, and form the process group that Lightning then uses."""
    try:
        store = meet(layout, log, watch.problem)
    except ProcessError:
        if layout.started_by_parent:  # which reports it
            raise SystemExit(USER_ERROR) from None
        raise
    backend = "nccl" if layout.device == "cuda" else "gloo"
    if layout.device == "cuda":
        torch.cuda.set_device(layout.local_rank)
    with quiet_loggers("torch.distributed"):
        torch.distributed.init_process_group(backend, store=store, rank=layout.rank, world_size=layout.world_size)
    try:
        yield
    finally:
        if backend == "gloo" or sys.exc_info()[0] is None:  # NCCL would wait for lost processes
            with suppress(RuntimeError):
                torch.distributed.destroy_process_group()


def _processes_of(layout: Layout) -> Processes:
    control = torch.distributed.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    shape: dict[str, Any] = {"devices": layout.devices, "nodes": layout.nodes, "environment": layout.environment}
    return Processes(layout.rank, layout.world_size, layout.local_rank, control=control, **shape)


@contextmanager
def _ending_others(processes: Processes, watch: Watch) -> Iterator[None]:
    """Turn the loss of another process into an error, and errors that process 0 reports into a silent end."""
    try:
        yield
    except KeyboardInterrupt:
        if processes.is_first:
            raise
        raise SystemExit(INTERRUPTED) from None
    except ThirtytwoError as error:
        if processes.is_first:
            raise
        if not isinstance(error, DivergedError | RunError):  # those occur in every process
            report(f"{processes.name}: {error}")
        raise SystemExit(USER_ERROR) from None
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        problem = watch.wait_for_problem() or f"the connection to another process was lost ({first_line(error)})"
        if not processes.is_first:
            if watch.reports:
                report(watch.message(problem))
            raise SystemExit(USER_ERROR) from None
        raise ProcessError(watch.sentence(problem), processes.advice()) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Log no warnings and show no progress: process 0 does."""
    with hidden(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
