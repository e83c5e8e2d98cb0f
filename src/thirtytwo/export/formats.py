"""Further files of a trained model: the table of export formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from thirtytwo.export.quantize import shrink_onnx
from thirtytwo.registry import Registry


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file that is made of a `model.onnx`.

    `write(source, target)` writes it; `ending` follows the model's name; `same_contract` says whether it is
    itself a model file of ours, with the same inputs, outputs and metadata. `tolerance` is how far its outputs may then
    be from the source's (`parity.rounding`), on images that the model was not trained on.
    """

    ending: str
    description: str
    write: Callable[[Path, Path], None]
    same_contract: bool = True
    tolerance: float = 0.25


EXPORTS: Registry[ExportFormat] = Registry("export format")

# float16 keeps eleven bits of a weight, so each is off by 2^-12 at most and sums of them by less than a hundredth; int8
# keeps seven, off by a few percent of a typical weight. What is beyond is no rounding but a broken file.
EXPORTS.register("onnx-float16")(
    ExportFormat(
        "-float16.onnx", "weights kept in half of their bits", partial(shrink_onnx, weights="float16"), tolerance=0.01
    )
)
EXPORTS.register("onnx-int8")(
    ExportFormat(
        "-int8.onnx", "weights kept in a quarter of their bits", partial(shrink_onnx, weights="int8"), tolerance=0.25
    )
)
