"""A trained network as one self-describing file: raw pixels in, calibrated probabilities out."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from thirtytwo.files import written_whole
from thirtytwo.models import Net
from thirtytwo.predict.modelfile import METADATA_KEY, ModelInfo

OPSET = 18


class PixelModel(nn.Module):
    """A network with normalisation before and calibrated softmax after it.

    Images uint8 `(N, H, W, 3)` → probabilities `(N, C)`, logits `(N, C)`, features `(N, D)` and, where the network has
    them, heatmaps `(N, h, w)` of the top class.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, net: Net, mean: tuple[float, ...], std: tuple[float, ...], temperature: float) -> None:
        super().__init__()
        self.net = net
        self.temperature = temperature
        self.register_buffer("scale", torch.tensor([1 / (255 * value) for value in std]))
        self.register_buffer("offset", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = (images.float() * self.scale + self.offset).permute(0, 3, 1, 2)
        maps = self.net.maps(pixels)
        features = self.net.pool(maps)
        logits = self.net.classify(features)
        probabilities = torch.softmax(logits / self.temperature, dim=1)
        outputs = (probabilities, logits, features)
        if not self.net.has_heatmaps:
            return outputs
        return *outputs, self.net.heatmaps(maps, logits.argmax(dim=1))

    def output_names(self) -> list[str]:
        """Names of what `forward` gives, in order."""
        return ["probabilities", "logits", "features", *(["heatmaps"] if self.net.has_heatmaps else [])]


def pixel_model(net: Net, info: ModelInfo) -> PixelModel:
    """A float32 copy of `net` on the CPU, ready to export or to compare with."""
    plain = copy.deepcopy(net).cpu().float().to(memory_format=torch.contiguous_format)
    return PixelModel(plain, tuple(info.mean), tuple(info.std), info.temperature).eval()


def export_onnx(net: Net, info: ModelInfo, path: Path) -> None:
    """Write `net` with its metadata to `path`, whole."""
    model = pixel_model(net, info)
    example = torch.zeros((2, info.input_size, info.input_size, 3), dtype=torch.uint8)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
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
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA_KEY: info.model_dump_json()})
    proto.producer_name, proto.producer_version = "thirtytwo", info.version
    onnx.checker.check_model(proto)
    with written_whole(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
