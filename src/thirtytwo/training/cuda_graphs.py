"""CUDA graphs: the kernels of a training step, recorded once and started together.

A small network keeps a GPU waiting, as Python and PyTorch take longer to start a step's hundreds of kernels one by one
than the GPU takes to run them. Recorded kernels read and write the same memory each time, so what they depend on is
recorded anew where it changes: the size of the images, the trained parameters, or where tensors are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thirtytwo.models import Network
from thirtytwo.tensors import send


class RecordedNetwork:
    """Computes logits of training batches on a GPU, with forward and backward pass each started as one graph.

    Gradients are in memory that the next call writes to: use them before, and accumulate none.
    """

    def __init__(self, net: Network) -> None:
        """`net` is one that `can_be_recorded`."""
        self._net = net
        self._key: Hashable = None
        self._earlier: set[Hashable] = set()
        self._run: Callable[[Tensor], Tensor] = net

    def __call__(self, images: Tensor) -> Tensor:
        """Logits `(B, C)` of images `(B, 3, H, W)`, whose gradients are not needed."""
        places = tuple((value.data_ptr(), value.requires_grad) for value in self._net.parameters())
        modes = tuple(module.training for module in self._net.modules())
        key = (images.shape, images.stride(), images.dtype, torch.get_autocast_dtype("cuda"), places, modes)
        if key != self._key:
            self._key, self._run = key, self._net  # the memory of the last graph is free before the next is recorded
            if key not in self._earlier:  # two that alternate would be recorded in every step
                self._earlier.add(key)
                self._run = self._recorded(images)
        return self._run(images)

    def _recorded(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        # the graph holds autograd's nodes of the parameters, of another stream than that of later steps, where they do
        # nothing; PyTorch would warn of it, with advice for those who record by hand
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        statistics = [value.clone() for value in self._net.buffers()]
        enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        with torch.autocast("cuda", dtype, enabled, cache_enabled=False):
            recorded: Any = torch.cuda.make_graphed_callables(_Logits(self._net), (images.clone(),))
        with torch.no_grad():  # the steps before recording have changed BatchNorm's statistics
            for value, before in zip(self._net.buffers(), statistics, strict=True):
                value.copy_(before)
        return recorded  # type: ignore[no-any-return]


class _Logits(nn.Module):
    """The network as a module of its own, whose `forward` PyTorch replaces."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits


class RecordedUpdate:
    """An optimizer's update of its parameters on a GPU, started as one graph.

    `update` takes the learning rate of each group, float32 `(G,)` on the GPU, and reads `parameter.grad`; it may
    depend on nothing else that changes from step to step.
    """

    def __init__(self, update: Callable[[Tensor], None]) -> None:
        self._update = update
        self._key: Hashable = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._rates = torch.empty(0)
        self._gradients: list[Tensor] = []

    def __call__(self, parameters: Sequence[Tensor], rates: Sequence[float], settings: Hashable) -> None:
        """Update `parameters`, all of which have gradients; `settings` are the others of the update's numbers."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        new = send(torch.tensor(rates), parameters[0].device)
        key = (settings, tuple(parameter.data_ptr() for parameter in parameters))
        if key != self._key:  # a first step without a graph allocates the optimizer's state
            self._key, self._graph = key, None
            self._update(new)
            return
        if self._graph is None:
            self._gradients = [torch.empty_like(gradient) for gradient in gradients]
            self._rates = torch.empty_like(new)
            self._graph = self._recorded(parameters)
        torch._foreach_copy_(self._gradients, gradients)
        self._rates.copy_(new)
        self._graph.replay()

    def _recorded(self, parameters: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        given = [parameter.grad for parameter in parameters]
        graph = torch.cuda.CUDAGraph()
        try:
            _set_gradients(parameters, self._gradients)
            with torch.cuda.graph(graph):
                self._update(self._rates)
        finally:
            _set_gradients(parameters, given)
        return graph


def _set_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
