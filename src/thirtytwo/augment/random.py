"""Beta and Dirichlet samples from a given generator; PyTorch samples these from its global one only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def beta(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Sample float32 `(count,)` from Beta(α, α)."""
    return torch.from_numpy(_numpy(generator).beta(alpha, alpha, count).astype(np.float32))


def dirichlet(count: int, parts: int, generator: torch.Generator) -> Tensor:
    """Sample float32 `(count, parts)` from the flat Dirichlet distribution; rows sum to 1."""
    return torch.from_numpy(_numpy(generator).dirichlet([1.0] * parts, count).astype(np.float32))


def _numpy(generator: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(0, 2**62, (), generator=generator)))
