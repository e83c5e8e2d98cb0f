"""How many processes train on how many machines, and which one this is: what was asked for and what started it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from thirtytwo.errors import ProcessError
from thirtytwo.machine import cpu_count

PARENT = "THIRTYTWO_PARENT"
"""Environment variable with the process number of the process that started this one for its training."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""


@dataclass(frozen=True)
class Layout:
    """The processes of a training; `device` is `cpu` or `cuda`, `starter` the name of what started them."""

    environment: ClusterEnvironment
    rank: int
    world_size: int
    local_rank: int
    devices: int
    nodes: int
    device: str
    starter: str = ""

    @property
    def started_by_parent(self) -> bool:
        """Whether process 0 of this machine started this one."""
        return not self.starter and os.environ.get(PARENT) == str(os.getppid()) and self.local_rank > 0

    @property
    def starts_others(self) -> bool:
        """Whether this process starts the others of its machine."""
        return not self.environment.creates_processes_externally


def find_layout(devices: int | None, nodes: int | None, device: str) -> Layout | None:
    """The processes of this training; None for a single one. Arguments are as in `launch.joined`.

    Raises:
        ProcessError: they do not fit the machine, or what started them.
    """
    for name, value in (("--devices", devices), ("--nodes", nodes)):
        if value is not None and value < 1:
            raise ProcessError(f"{name} is {value}; expected at least 1.", "Leave it out to train in one process.")
    if TorchElasticEnvironment.detect():
        found = _of_torchrun(devices, nodes, device)
    elif _is_slurm_step():
        found = _of_slurm(devices, nodes, device)
    else:
        found = _of_shell(devices or 1, nodes or 1, device)
    if found.world_size == 1:
        return None
    _check_device(found, device)
    return found


def started_elsewhere() -> bool:
    """Whether torchrun or SLURM started several processes of this command."""
    if TorchElasticEnvironment.detect():
        return _number("WORLD_SIZE", "torchrun") > 1
    return _is_slurm_step() and _number("SLURM_NTASKS", "srun") > 1


def _is_slurm_step() -> bool:
    """Whether `srun` started this process; a batch script without it is a single process."""
    return "SLURM_STEP_ID" in os.environ and SLURMEnvironment.detect()


def _of_torchrun(devices: int | None, nodes: int | None, device: str) -> Layout:
    world, local = _number("WORLD_SIZE", "torchrun"), _number("LOCAL_WORLD_SIZE", "torchrun")
    started = {"--devices": local, "--nodes": world // local}
    _check_same({"--devices": devices, "--nodes": nodes}, started, "torchrun")
    places = [_number(name, "torchrun") for name in ("RANK", "LOCAL_RANK")]
    return _layout(TorchElasticEnvironment(), places, started, device, "torchrun")


def _of_slurm(devices: int | None, nodes: int | None, device: str) -> Layout:
    world, machines = _number("SLURM_NTASKS", "srun"), int(os.environ.get("SLURM_NNODES", "1"))
    if world > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ProcessError(
            f"SLURM started {world} tasks without saying how many on each machine.",
            "Replace --ntasks by --nodes and --ntasks-per-node in the job.",
        )
    started = {"--devices": world // machines, "--nodes": machines}
    _check_same({"--devices": devices, "--nodes": nodes}, started, "SLURM")
    places = [_number(name, "srun") for name in ("SLURM_PROCID", "SLURM_LOCALID")]
    return _layout(SLURMEnvironment(auto_requeue=False), places, started, device, "SLURM")


def _of_shell(devices: int, nodes: int, device: str) -> Layout:
    world, node = devices * nodes, 0
    if nodes > 1:
        node = _check_addresses(nodes)
    local = _number("LOCAL_RANK", "the shell") if "LOCAL_RANK" in os.environ and world > 1 else 0
    if local >= devices:
        raise ProcessError(
            f"LOCAL_RANK is {local}, but --devices is {devices}, so that it must be below {devices}.",
            "Unset LOCAL_RANK, or set --devices to the number of processes on this machine.",
        )
    started = os.environ.get("WORLD_SIZE")
    if world > 1 and started is not None and started != str(world):
        raise ProcessError(
            f"WORLD_SIZE is {started}, but --devices {devices} and --nodes {nodes} make {world} processes.",
            "Unset WORLD_SIZE, or correct --devices and --nodes.",
        )
    _refuse_notebook(world)
    return _layout(
        LightningEnvironment(), [node * devices + local, local], {"--devices": devices, "--nodes": nodes}, device
    )


def _layout(
    environment: ClusterEnvironment, places: list[int], shape: dict[str, int], device: str, starter: str = ""
) -> Layout:
    rank, local = places
    devices, nodes = shape.values()
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return Layout(environment, rank, devices * nodes, local, devices, nodes, kind, starter)


def _check_same(asked: dict[str, int | None], started: dict[str, int], starter: str) -> None:
    for name, value in asked.items():
        if value is not None and value != started[name]:
            what = "processes on each machine" if name == "--devices" else "machines"
            raise ProcessError(
                f"{name} is {value}, but {starter} started {started[name]} {what}.",
                f"Leave {name} out, or start as many with {starter}.",
            )


def _check_addresses(nodes: int) -> int:
    """The number of this machine, from the variables that several machines need without torchrun or SLURM."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        if not os.environ.get(name):
            raise ProcessError(
                f"--nodes is {nodes}, but {name} is not set on this machine.",
                "Set MASTER_ADDR and MASTER_PORT to the address of the first machine and a free port there, and "
                f"NODE_RANK to 0 up to {nodes - 1} on each, or start with torchrun or srun.",
            )
    port, node = _number("MASTER_PORT", "the shell"), _number("NODE_RANK", "the shell")
    if not 0 < port < 65_536:
        raise ProcessError(
            f"MASTER_PORT is {port}; expected 1 to 65535.", "Set it to a free port of the first machine."
        )
    if node >= nodes:
        raise ProcessError(
            f"NODE_RANK is {node}, but --nodes is {nodes}; expected 0 to {nodes - 1}.",
            "Set NODE_RANK to another number on each machine, and --nodes to their number.",
        )
    return node


def _number(name: str, starter: str) -> int:
    text = os.environ.get(name, "")
    if not (text.isascii() and text.isdigit()):
        found = f"is {text!r}" if text else "is not set"
        raise ProcessError(
            f"{name} {found}; expected a number from {starter}.", f"Set {name}, or check how this was started."
        )
    return int(text)


def _check_device(layout: Layout, device: str) -> None:
    """Check that each process of this machine has a device of its own, or a core."""
    if layout.device == "mps":
        raise ProcessError(
            f"--device is mps, on which one process can train; asked for {layout.world_size}.",
            "Leave out --devices and --nodes, or choose --device cpu.",
        )
    if layout.device == "cuda":
        there, what = torch.cuda.device_count(), "GPU"
    else:
        there, what = cpu_count(), "CPU core"
    if layout.devices > there and not (layout.device == "cpu" and layout.starter):
        raise ProcessError(
            f"--devices is {layout.devices}, but this process may use {there} {what}{'s' * (there != 1)}.",
            f"Use at most {there} on this machine" + (", or choose --device cpu." if what == "GPU" else "."),
        )


def _refuse_notebook(world: int) -> None:
    """Check that the command of this process can be run again, which starts the others."""
    main = sys.modules["__main__"]
    if world > 1 and getattr(main, "__spec__", None) is None and not hasattr(main, "__file__"):
        raise ProcessError(
            f"A notebook or interactive session cannot start {world} processes: they run the same script again.",
            "Train with the command thirtytwo train --devices, or from a script.",
        )
