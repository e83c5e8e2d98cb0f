"""The reason that is logged for the number of threads is the true one."""

from __future__ import annotations

import pytest
import torch

from thirtytwo.tensors import preserve_torch_state
from thirtytwo.training.hardware import _choose_threads


@pytest.mark.parametrize(
    ("setting", "environment", "threads", "cores", "expected", "reason"),
    [
        (3, {}, 1, 2, 3, "set in the recipe"),
        ("auto", {"OMP_NUM_THREADS": "1"}, 1, 2, 1, "set by OMP_NUM_THREADS; this process may use 2 cores"),
        ("auto", {"MKL_NUM_THREADS": "1"}, 1, 2, 1, "set by MKL_NUM_THREADS; this process may use 2 cores"),
        ("auto", {}, 2, 2, 2, "one for each core this process may use"),
        ("auto", {}, 4, 2, 2, "one for each core this process may use"),
        ("auto", {}, 1, 2, 1, "as set by the program or chosen by PyTorch; this process may use 2 cores"),
    ],
)
def test_reason_of_the_number_of_threads(
    setting: object,
    environment: dict[str, str],
    threads: int,
    cores: int,
    expected: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("thirtytwo.training.hardware.cpu_count", lambda: cores)
    with preserve_torch_state():
        torch.set_num_threads(threads)
        assert _choose_threads(setting) == (expected, reason)  # type: ignore[arg-type]
