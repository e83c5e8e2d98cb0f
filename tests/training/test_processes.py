"""Processes of a training: their shares, what started them, and errors of the machine and the environment."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from thirtytwo.errors import DataError, ProcessError, RecipeError, ThirtytwoError
from thirtytwo.training.batches import Batches, Selection
from thirtytwo.training.layout import find_layout, started_elsewhere
from thirtytwo.training.processes import Processes, current, share_batches, using
from thirtytwo.training.watch import Watch, is_lost_connection

VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE")
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1"}
SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
SHELL = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "NODE_RANK": "1"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A script in an environment without variables of torchrun and SLURM, on a machine with four cores."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "train.py", raising=False)  # pytest-xdist's may have none
    for name in list(os.environ):
        if name in VARIABLES or name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("thirtytwo.training.layout.cpu_count", lambda: 4)
    return monkeypatch


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "expected"),
    [
        ({}, 2, None, (0, 2, 0, 2, 1)),
        (SHELL, 2, 2, (2, 4, 0, 2, 2)),
        (SHELL, None, 2, (1, 2, 0, 1, 2)),
        (SHELL | {"LOCAL_RANK": "1"}, 2, 2, (3, 4, 1, 2, 2)),
        (TORCHRUN, None, None, (3, 4, 1, 2, 2)),
        (TORCHRUN, 2, 2, (3, 4, 1, 2, 2)),
        (SLURM, None, None, (3, 4, 1, 2, 2)),
    ],
)
def test_layouts(
    environment: dict[str, str],
    devices: int | None,
    nodes: int | None,
    expected: tuple[int, ...],
    started: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        started.setenv(name, value)
    found = find_layout(devices, nodes, "cpu")
    assert found is not None
    assert (found.rank, found.world_size, found.local_rank, found.devices, found.nodes) == expected
    assert started_elsewhere() == bool(found.starter)
    assert found.starts_others == (not found.starter and "LOCAL_RANK" not in environment)


@pytest.mark.parametrize(
    ("environment", "devices", "nodes"),
    [
        ({}, None, None),
        ({}, 1, 1),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "1"}, None, None),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_PROCID": "0"}, None, None),
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}, None, None),  # without srun
    ],
)
def test_single_processes(
    environment: dict[str, str], devices: int | None, nodes: int | None, started: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        started.setenv(name, value)
    assert find_layout(devices, nodes, "cpu") is None
    assert not started_elsewhere()


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "found"),
    [
        ({}, 0, None, "--devices is 0"),
        ({}, None, 0, "--nodes is 0"),
        ({}, 5, None, "--devices is 5.*4 CPU cores"),
        ({}, 2, 2, "--nodes is 2.*MASTER_ADDR"),
        ({"MASTER_ADDR": "127.0.0.1"}, 2, 2, "MASTER_PORT"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}, 2, 2, "NODE_RANK"),
        (SHELL | {"NODE_RANK": "2"}, 2, 2, "NODE_RANK is 2.*0 to 1"),
        (SHELL | {"NODE_RANK": "one"}, 2, 2, "NODE_RANK is 'one'"),
        (SHELL | {"MASTER_PORT": "99999"}, 2, 2, "MASTER_PORT is 99999"),
        ({"LOCAL_RANK": "3"}, 2, None, "LOCAL_RANK is 3.*--devices is 2"),
        ({"WORLD_SIZE": "3"}, 2, None, "WORLD_SIZE is 3.*2 processes"),
        (TORCHRUN, 3, None, "--devices is 3.*torchrun started 2"),
        (TORCHRUN, None, 3, "--nodes is 3.*torchrun started 2"),
        ({name: value for name, value in TORCHRUN.items() if name != "RANK"}, None, None, "RANK is not set"),
        (SLURM, 3, None, "--devices is 3.*SLURM started 2"),
        ({n: v for n, v in SLURM.items() if n != "SLURM_NTASKS_PER_NODE"}, None, None, "SLURM started 4 tasks"),
    ],
)
def test_errors(
    environment: dict[str, str], devices: int | None, nodes: int | None, found: str, started: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        started.setenv(name, value)
    with pytest.raises(ProcessError, match=found) as raised:
        find_layout(devices, nodes, "cpu")
    assert raised.value.fix


def test_mps_trains_in_one_process(started: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProcessError, match="mps"):
        find_layout(2, None, "mps")


def test_gpus_are_counted(started: pytest.MonkeyPatch) -> None:
    started.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ProcessError, match="--devices is 2.*1 GPU"):
        find_layout(2, None, "cuda")


def test_a_notebook_cannot_start_others(started: pytest.MonkeyPatch) -> None:
    started.setitem(__import__("sys").modules, "__main__", SimpleNamespace())
    with pytest.raises(ProcessError, match="notebook"):
        find_layout(2, None, "cpu")


def test_shares_are_disjoint_and_hold_all() -> None:
    rows = torch.arange(11)
    assert current().share_of(rows) is rows
    shares = [Processes(rank, 3).share_of(rows).tolist() for rank in range(3)]
    assert sorted(row for share in shares for row in share) == rows.tolist()


def test_each_process_takes_its_share_of_the_same_batches() -> None:
    def batches_of(rank: int, world: int) -> list[list[int]]:
        with using(Processes(rank, world)):
            batches = Batches(50, 8, 3, lambda positions, epoch, step: (positions, positions))
            return [positions.tolist() for positions, _ in batches]

    whole, first, second = batches_of(0, 1), batches_of(0, 2), batches_of(1, 2)
    assert len(whole) == len(first) == len(second) == 6
    for batch, one, other in zip(whole, first, second, strict=True):
        assert len(one) == len(other) == 4
        assert sorted(batch) == sorted(one + other)


def test_random_numbers_differ_between_processes_and_the_first_has_those_of_one() -> None:
    purposes = [Processes(rank, 3).purpose("crop") for rank in range(3)]
    assert purposes[0] == "crop"
    assert len(set(purposes)) == 3


@pytest.mark.parametrize(
    ("batch", "val", "error"), [(64, 10, None), (65, 10, RecipeError), (64, 1, DataError), (64, None, None)]
)
def test_batches_are_shared_evenly(batch: int, val: int | None, error: type[ThirtytwoError] | None) -> None:
    assert share_batches(batch, val) == ()
    with using(Processes(0, 2, devices=2)):
        if error is None:
            assert "32" in share_batches(batch, val)[0].reason
        else:
            with pytest.raises(error) as raised:
                share_batches(batch, val)
            assert raised.value.fix


def test_options_start_as_many_processes_again() -> None:
    assert current().options == []
    assert Processes(0, 6, devices=3, nodes=2).options == ["--devices", "3", "--nodes", "2"]


def test_selection_of_one_process_needs_no_exchange(tiny: SimpleNamespace) -> None:
    selection = Selection(tiny.recipe(train__selection={"share": 0.5}).train.selection, 4, torch.device("cpu"))
    selection.record(torch.tensor([1, 3]), torch.tensor([0.5, 2.0]))
    before = selection.state_dict()["losses"].clone()
    selection.exchange()
    assert torch.equal(selection.state_dict()["losses"], before)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:1", True),
        ("Connection reset by peer", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
        ("CUDA out of memory", False),
    ],
)
def test_lost_connections_are_told_from_bugs(text: str, lost: bool) -> None:
    assert is_lost_connection(RuntimeError(text)) == lost


@pytest.mark.parametrize(("code", "said"), [(None, None), (0, None), (2, "exit code 2"), (-9, "SIGKILL")])
def test_what_happened_to_a_process(code: int | None, said: str | None, started: pytest.MonkeyPatch) -> None:
    layout = find_layout(2, None, "cpu")
    assert layout is not None
    child = SimpleNamespace(poll=lambda: code)
    found = Watch(layout, [child]).problem()  # type: ignore[list-item]
    assert (found is None) if said is None else (found is not None and said in found)
