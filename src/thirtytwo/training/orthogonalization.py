"""Orthogonalization of matrices by a Newton–Schulz iteration, for Muon."""

from __future__ import annotations

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor

NEWTON_SCHULZ_STEPS = 3
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NORM_FLOOR = 1e-7
_LEAST_SIDE = 128
_LEAST_RATIO = 2


def orthogonalize(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Move the singular values of a matrix towards 1 by three steps of the Newton–Schulz iteration of Muon.

    A matrix with at least 128 rows and columns that is at least twice as long as wide is multiplied twice instead of
    six times: the iteration runs on its Gram matrix, as in "Gram Newton-Schulz" (J. Zhang, N. Amsel, B. Chen, T. Dao,
    2026, https://dao-lab.ai/blog/2026/gram-newton-schulz). The result is that of timm's iteration, but for rounding: in
    bfloat16, it is less exact where a few directions are far larger than all others.

    Args:
        matrix: `(m, n)`.
        dtype: of the products; bfloat16 is precise enough.

    Returns:
        `(m, n)` in `dtype`.
    """
    short, long = sorted(matrix.shape)
    if short < _LEAST_SIDE or long < _LEAST_RATIO * short:
        return zeropower_via_newtonschulz(matrix, NEWTON_SCHULZ_STEPS, [NEWTON_SCHULZ_COEFFICIENTS], dtype=dtype)
    rows = matrix.to(dtype) if matrix.shape[0] == short else matrix.T.to(dtype)
    result = _of_rows(rows / rows.norm().clamp(min=NORM_FLOOR))
    return result if matrix.shape[0] == short else result.T


def _of_rows(rows: Tensor) -> Tensor:
    """Three steps on a matrix with a norm of at most 1.

    A step multiplies the rows by `linear · identity + change`, where `change` is a polynomial of their Gram matrix. The
    factor of the identity is kept apart, so that it is not rounded.
    """
    linear, cubic, quintic = NEWTON_SCHULZ_COEFFICIENTS
    gram = rows @ rows.T
    change = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
    scale, product = linear, change  # of all steps so far: scale · identity + product
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        half = torch.addmm(gram, gram, change, beta=linear)
        gram = torch.addmm(half, half, change, beta=linear)
        change = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        product = torch.addmm(linear * product + scale * change, change, product)
        scale *= linear
    return torch.addmm(rows, product, rows, beta=scale)
