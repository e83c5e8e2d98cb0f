"""CUDA graphs: the kernels of a training step, recorded once and started together.

A small network keeps a GPU waiting, as Python and PyTorch take longer to start a step's hundreds of kernels one by one
than the GPU takes to run them. Recorded kernels read and write the same memory each time, so they are recorded anew
when what they depend on changes: the size of the images, the trained parameters, or where tensors are in memory.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import RunError
from thirtytwo.models import Network
from thirtytwo.tensors import send
from thirtytwo.text import first_line


def can_record(recipe: Recipe, net: Network) -> bool:
    """Whether training steps of this recipe can run as CUDA graphs.

    Not in transfer learning, which changes what layers do from stage to stage. Gradients of a step are overwritten by
    the next one, so they can neither be accumulated nor kept by an optimizer; `MuonSGD` keeps none.
    """
    plain = recipe.schedule.accumulate == 1 and not recipe.optimizer.sam and not recipe.transfer.pretrained
    return net.can_be_recorded and recipe.optimizer.per_image and plain


class RecordedNetwork:
    """Computes logits of training batches on a GPU, with forward and backward pass each started as one graph.

    Logits and gradients are in memory that the next call writes to: use them before, and accumulate none. After a
    change of sizes or trained parameters, those that were recorded before run without a graph.
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
        places += tuple((value.data_ptr(), False) for value in self._net.buffers())
        modes = tuple(module.training for module in self._net.modules())
        precision = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = (images.shape, images.stride(), images.dtype, *precision, places, modes)
        if key != self._key:
            self._key, self._run = key, self._net  # PyTorch 2.15 frees the memory of the last graph here
            if key not in self._earlier:  # two that alternate would be recorded in every step
                self._earlier.add(key)
                self._run = self._recorded(images)
        return self._run(images)

    def _recorded(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        # while the graph exists, so do autograd's nodes that add to `.grad`, which belong to the stream of recording;
        # autograd makes the streams wait for each other, and would warn of it, for the rest of the process
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        statistics = [value.clone() for value in self._net.buffers()]
        enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        try:
            with _recording(), torch.autocast("cuda", dtype, enabled, cache_enabled=False):
                recorded: Any = torch.cuda.make_graphed_callables(_Logits(self._net), (images.clone(),))
        finally:
            with torch.no_grad():  # the steps before recording have changed BatchNorm's statistics
                for value, before in zip(self._net.buffers(), statistics, strict=True):
                    value.copy_(before)
        return recorded  # type: ignore[no-any-return]


@contextmanager
def _recording() -> Iterator[None]:
    """Collect no garbage while kernels are recorded, since freeing another graph would end the recording.

    Raises:
        RunError: they cannot be recorded.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    except RuntimeError as error:  # also where the GPU's memory is full
        raise RunError(
            f"A training step could not be recorded as a CUDA graph: {first_line(error)}.",
            "Train without: --set train.cuda_graphs=off",
        ) from error
    finally:
        if was_enabled:
            gc.enable()


class _Logits(nn.Module):
    """The network as a module of its own, whose `forward` PyTorch replaces."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits


class RecordedUpdate:
    """An optimizer's update of its parameters on a GPU, started as one graph."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._rates = torch.empty(0)
        self._gradients: list[Tensor] = []

    def __call__(
        self,
        update: Callable[[Tensor], None],
        parameters: Sequence[Tensor],
        rates: Sequence[float],
        settings: Hashable,
    ) -> None:
        """Update parameters.

        Args:
            update: takes the learning rate of each group, float32 `(G,)` on the GPU, and reads `parameter.grad`; it may
                depend on nothing else that changes from step to step but `settings`.
            parameters: those that are updated, all of which have gradients.
            rates: learning rates of the groups, G.
            settings: the update is recorded again when these change.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        new = send(torch.tensor(rates), parameters[0].device)
        key = (settings, tuple(parameter.data_ptr() for parameter in parameters))
        if key != self._key:  # a first step without a graph allocates the optimizer's state
            self._key, self._graph = key, None
            update(new)
            return
        if self._graph is None:
            self._gradients = [torch.empty_like(gradient) for gradient in gradients]
            self._rates = torch.empty_like(new)
            self._graph = self._recorded(update, parameters)
        torch._foreach_copy_(self._gradients, gradients)
        self._rates.copy_(new)
        self._graph.replay()

    def _recorded(self, update: Callable[[Tensor], None], parameters: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        given = [parameter.grad for parameter in parameters]
        graph = torch.cuda.CUDAGraph()
        try:
            _set_gradients(parameters, self._gradients)
            with _recording(), torch.cuda.graph(graph):
                update(self._rates)
        finally:
            _set_gradients(parameters, given)
        return graph


def _set_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
