"""Registry of export formats: further files derived from a trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from thirtytwo.export.quantize import shrink_onnx
from thirtytwo.registry import Registry


@dataclass(frozen=True)
class ExportFormat:
    """A file format derived from a `model.onnx`.

    `write(source, target)` writes the file; `ending` is appended to the model's name. `same_contract`: the file is
    itself a thirtytwo model file with the same inputs, outputs and metadata; then `tolerance` is the largest allowed
    difference of its outputs (`parity.rounding`), on images that the model was not trained on.
    """

    ending: str
    description: str
    write: Callable[[Path, Path], None]
    same_contract: bool = True
    tolerance: float = 0.25


EXPORTS: Registry[ExportFormat] = Registry("export format")

# float16 has 11 significant bits, so the relative error of a weight is at most 2^-12; int8 has 7, an error of a few
# percent of a typical weight. A larger difference is not rounding: the file is broken.
EXPORTS.register("onnx-float16")(
    ExportFormat(
        "-float16.onnx",
        "weights stored as float16: half the size",
        partial(shrink_onnx, weights="float16"),
        tolerance=0.01,
    )
)
EXPORTS.register("onnx-int8")(
    ExportFormat(
        "-int8.onnx",
        "weights stored as int8: a quarter of the size",
        partial(shrink_onnx, weights="int8"),
        tolerance=0.25,
    )
)
