"""Export a trained network to ONNX: raw pixels in, calibrated probabilities out, with metadata."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.inference.integrity import with_checksum
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.inference.session import KNOWN_SCORE
from thirtytwo.io import METADATA_KEY, atomic_write
from thirtytwo.models import Network
from thirtytwo.models.base import apply_curvature, features_of
from thirtytwo.process import quiet_loggers

OPSET = 18


class PixelModel(nn.Module):
    """A network with normalization, calibrated softmax and OOD score, as exported.

    Images uint8 `(N, H, W, 3)` → probabilities `(N, C)`, logits `(N, C)` after subtraction of the curvature term,
    features `(N, D)`; heatmaps `(N, h, w)` of the top class if the network supports them; known_score `(N,)` if the
    network computes it or class means `(C, D)` are given (`evaluation.ood`).
    """

    scale: Tensor
    offset: Tensor
    means: Tensor | None

    def __init__(self, net: Network, info: ModelInfo, means: npt.NDArray[np.float32] | None = None) -> None:
        super().__init__()
        self.net = net
        self.temperature = info.temperature
        self.curvature = info.curvature
        self.register_buffer("scale", torch.tensor([1 / (255 * value) for value in info.std]))
        self.register_buffer("offset", torch.tensor([-m / s for m, s in zip(info.mean, info.std, strict=True)]))
        self.register_buffer("means", None if means is None else torch.tensor(means))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = (images.float() * self.scale + self.offset).permute(0, 3, 1, 2)
        maps = self.net.forward_features(pixels)
        features = features_of(self.net, maps)
        logits = apply_curvature(self.net.classify(features), self.curvature)
        probabilities = torch.softmax(logits / self.temperature, dim=1)
        outputs = [probabilities, logits, features]
        if self.net.has_heatmaps:
            outputs.append(self.net.heatmaps(maps, logits.argmax(dim=1)))
        if self.net.scores_known:
            outputs.append(self.net.known_score(features))
        elif self.means is not None:
            outputs.append((F.normalize(features, dim=1) @ self.means.T).amax(dim=1))
        return tuple(outputs)

    def output_names(self) -> list[str]:
        """Names of the outputs of `forward`, in order."""
        known = self.net.scores_known or self.means is not None
        heatmaps = ["heatmaps"] if self.net.has_heatmaps else []
        return ["probabilities", "logits", "features", *heatmaps, *([KNOWN_SCORE] if known else [])]


def pixel_model(net: Network, info: ModelInfo, means: npt.NDArray[np.float32] | None = None) -> PixelModel:
    """Build a `PixelModel` from a float32 copy of `net` on the CPU."""
    copied = copy.deepcopy(net).cpu().float().to(memory_format=torch.contiguous_format)
    return PixelModel(copied, info, means).eval()


def export_onnx(net: Network, info: ModelInfo, path: Path, means: npt.NDArray[np.float32] | None = None) -> None:
    """Export `net` with its metadata to `path`, atomically.

    Args:
        net: the trained network.
        info: metadata of the model file.
        path: the file to write.
        means: class means `(C, D)` for `known_score`; None: no class means.
    """
    model = pixel_model(net, info, means)
    example = torch.zeros((2, info.input_size, info.input_size, 3), dtype=torch.uint8)
    with quiet_loggers("torch.onnx", "onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (example,),
            input_names=["images"],
            output_names=model.output_names(),
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA_KEY: info.model_dump_json()})
    proto.producer_name, proto.producer_version = "thirtytwo", info.version
    strip_exporter_notes(proto)
    onnx.checker.check_model(proto)
    with atomic_write(path) as temporary:
        temporary.write_bytes(with_checksum(proto.SerializeToString()))


def strip_exporter_notes(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: stack traces that contain paths of the machine it ran on."""
    graph = model.graph
    annotated = [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for function in model.functions:
        annotated += [function, *function.node, *function.value_info]
    for part in annotated:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
