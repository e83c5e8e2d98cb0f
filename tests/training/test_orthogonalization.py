"""The orthogonalization of Muon against timm's iteration and singular values."""

from __future__ import annotations

import pytest
import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from thirtytwo.training.orthogonalization import NEWTON_SCHULZ_COEFFICIENTS, NEWTON_SCHULZ_STEPS, orthogonalize

SHAPES = [(128, 256), (128, 1152), (1152, 128), (192, 400), (128, 255), (127, 512), (16, 300), (8, 8)]
SPECTRA = ["random", "a few directions", "six orders of magnitude", "one large row", "zero"]


def matrix(shape: tuple[int, int], spectrum: str) -> Tensor:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=random)
    if spectrum == "a few directions":
        return values[:, :3] @ torch.randn(3, shape[1], generator=random)
    if spectrum == "six orders of magnitude":
        return values * torch.logspace(0, -6, shape[1])
    if spectrum == "one large row":
        values[0] *= 1000
    return values * 0 if spectrum == "zero" else values


def of_timm(values: Tensor, dtype: torch.dtype) -> Tensor:
    return zeropower_via_newtonschulz(values, NEWTON_SCHULZ_STEPS, [NEWTON_SCHULZ_COEFFICIENTS], dtype=dtype)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_result_is_that_of_timm(shape: tuple[int, int], spectrum: str) -> None:
    values = matrix(shape, spectrum)
    before = values.clone()
    exact = of_timm(values, torch.float64)
    found = orthogonalize(values, torch.float64)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)
    assert torch.equal(values, before)


@pytest.mark.parametrize("spectrum", SPECTRA[:-1])
@pytest.mark.parametrize("shape", SHAPES)
def test_rounding_to_bfloat16_matters_little(shape: tuple[int, int], spectrum: str) -> None:
    values = matrix(shape, spectrum)
    exact = of_timm(values, torch.float64)
    found = orthogonalize(values, torch.bfloat16).double()
    errors = [float((one - exact).norm() / exact.norm()) for one in (found, of_timm(values, torch.bfloat16).double())]
    extreme = spectrum in ("six orders of magnitude", "one large row")  # where a Gram matrix is rounded more
    assert errors[0] < (0.25 if extreme else 1.2 * errors[1] + 0.01), errors
    assert float(torch.linalg.svdvals(found).max()) < 1.3


@pytest.mark.parametrize(("shape", "most"), [((128, 2304), 0.5), ((2304, 128), 0.5), ((128, 256), 0.9)])
def test_long_matrices_need_fewer_operations(shape: tuple[int, int], most: float) -> None:
    values = matrix(shape, "random")
    counts = []
    for iteration in (orthogonalize, of_timm):
        with FlopCounterMode(display=False) as counter:
            iteration(values, torch.float32)
        counts.append(counter.get_total_flops())
    assert counts[0] < most * counts[1]
