"""Which of the processes of a training this one is, and what they exchange; one process, unless `launch.joined` ran."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thirtytwo.config.settings import Choice
from thirtytwo.errors import DataError, RecipeError, ThirtytwoError
from thirtytwo.text import counted

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

T = TypeVar("T")

USER_ERROR = 2
"""Exit code of a process that ends because of an error which process 0 reports."""


@dataclass(eq=False)
class Processes:
    """The processes of a training, of which this one has the number `rank`.

    Attributes:
        rank: number of this process among all, from 0; process 0 alone writes, logs and evaluates.
        world_size: number of processes.
        local_rank: number of this process on its machine, which is also that of its GPU.
        devices: number of processes on each machine.
        nodes: number of machines.
        environment: what started the processes; None for a single process.
        control: process group for messages, which waits as long as it takes; None for a single process.
        advice: called when a process was lost; says what to do.
        parted: set once the processes no longer need each other.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    devices: int = 1
    nodes: int = 1
    environment: ClusterEnvironment | None = None
    control: Any = None
    advice: Callable[[], str | None] = field(default=lambda: None)
    parted: threading.Event = field(default_factory=threading.Event)

    @property
    def is_first(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there is more than one process."""
        return self.world_size > 1

    @property
    def name(self) -> str:
        """This process in messages."""
        return f"process {self.rank} of {self.world_size} on {socket.gethostname()}"

    @property
    def options(self) -> list[str]:
        """The options of `thirtytwo train` that start as many processes; none for a single one."""
        shape = {"--devices": self.devices, "--nodes": self.nodes}
        return [word for name, count in shape.items() if count > 1 for word in (name, str(count))]

    def record(self) -> dict[str, int]:
        """The entry of `environment.json`."""
        return {"world_size": self.world_size, "devices": self.devices, "nodes": self.nodes}

    def share_of(self, values: Tensor) -> Tensor:
        """Every `world_size`-th row of `values` `(N, ...)`, from row `rank`: shares are disjoint and hold all rows."""
        return values[self.rank :: self.world_size] if self.several else values

    def purpose(self, name: str) -> str:
        """The purpose of random numbers (`tensors.generator_for`) that differ between processes."""
        return f"{name}, process {self.rank}" if self.rank else name

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.several:
            values = values.clone()
            torch.distributed.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a float tensor over the processes."""
        return self.total(values) / self.world_size if self.several else values

    @torch.no_grad()
    def average_statistics(self, net: nn.Module) -> None:
        """Replace running statistics of BatchNorm in training mode by their mean over the processes."""
        if not self.several:
            return
        norms = [one for one in net.modules() if isinstance(one, _BatchNorm) and one.training]
        statistics = [part for one in norms for part in (one.running_mean, one.running_var) if part is not None]
        if not statistics:
            return
        averaged = self.mean(torch.cat([part.flatten() for part in statistics]))
        sizes = [part.numel() for part in statistics]
        for part, values in zip(statistics, torch.split(averaged, sizes), strict=True):
            part.copy_(values.view_as(part))

    def from_first(self, value: T) -> T:
        """The value that process 0 gave."""
        if not self.several:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def on_first(self, work: Callable[[], T]) -> T | None:
        """Run `work` on process 0, while the others wait; its result there, None elsewhere.

        Raises:
            ThirtytwoError: `work` raised it, on process 0.
            SystemExit: `work` raised an error, on the other processes.
        """
        return self._on(0, work)

    def on_others(self, work: Callable[[], T]) -> T | None:
        """Run `work` on the first process of each other machine, then on all others; None on process 0.

        So data are downloaded and decoded once on each machine.

        Raises:
            ThirtytwoError: `work` raised it on some process; raised on process 0.
            SystemExit: the same, on the other processes.
        """
        results = [self._on(turn, work) for turn in (1, 2)]
        return next((result for result in results if result is not None), None)

    @property
    def _turn(self) -> int:
        return 0 if self.is_first else 1 if self.local_rank == 0 else 2

    def _on(self, turn: int, work: Callable[[], T]) -> T | None:
        result, error = None, None
        if turn == self._turn:
            try:
                result = work()
            except ThirtytwoError as raised:
                if not self.several:
                    raise
                error = raised
        if self.several:
            self._agree(error)
        return result

    def _agree(self, error: ThirtytwoError | None) -> None:
        """End all processes if one has an error."""
        mine = None if error is None else (self.name, error.message, error.fix)
        found: list[tuple[str, str, str | None] | None] = [None] * self.world_size
        torch.distributed.all_gather_object(found, mine, group=self.control)
        first = next((one for one in found if one is not None), None)
        if first is None:
            return
        if not self.is_first:
            raise SystemExit(USER_ERROR)
        if error is not None:
            raise error
        where, message, fix = first
        raise ThirtytwoError(f"{where}: {message}", fix)


_current = Processes()


def current() -> Processes:
    """The processes of this training: a single one outside `launch.joined`."""
    return _current


@contextmanager
def using(processes: Processes) -> Iterator[Processes]:
    """Make `processes` the current ones while the block runs."""
    global _current
    before, _current = _current, processes
    try:
        yield processes
    finally:
        _current = before


def share_batches(batch_size: int, val_rows: int | None) -> tuple[Choice, ...]:
    """Check that each process gets the same number of images of a batch; returns the choice for the log.

    Args:
        batch_size: images of a batch over all processes.
        val_rows: number of validation images, or None.

    Raises:
        RecipeError: the batch cannot be divided evenly.
        DataError: there are fewer validation images than processes.
    """
    world = _current.world_size
    if world == 1:
        return ()
    if batch_size % world:
        near = max(1, round(batch_size / world)) * world
        raise RecipeError(
            f"A batch has {batch_size} images, which {world} processes cannot share evenly.",
            f"Set a multiple of {world}: --set schedule.batch_size={near}",
        )
    if val_rows is not None and val_rows < world:
        raise DataError(
            f"Found {counted(val_rows, 'validation image')} for {world} processes; expected at least one for each.",
            "Train with fewer processes, or hold out more with --set data.val_fraction=0.2",
        )
    layout = f"{_current.devices} on each of {_current.nodes} machines" if _current.nodes > 1 else "on this machine"
    share = f"each takes {batch_size // world:,} of the {batch_size:,} images of a batch; gradients are averaged"
    return (Choice("processes", f"{world} {layout}", share),)
