"""Check that the outputs of an exported model equal those of its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from thirtytwo.errors import ExportError
from thirtytwo.export.onnx import pixel_model
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.inference.session import KNOWN_SCORE
from thirtytwo.models import Network
from thirtytwo.tensors import scored_batch_size

TIE = 1e-5
"""Two largest probabilities closer than this count as a tie: either class may be the top class."""
BATCH = 32
"""Images that are compared at a time; fewer where they are large."""
FLOAT32_STEP = float(np.finfo(np.float32).eps)
"""Relative distance of a float32 number to the next one."""
TINY = float(np.finfo(np.float32).tiny)

Outputs = dict[str, npt.NDArray[np.float32]]
"""Outputs of a model by name; each has one row per image."""


@dataclass(frozen=True)
class Tolerance:
    """Allowed difference of an output from the network's; `relative`: as a share of its largest absolute value."""

    allowed: float
    relative: bool
    why: str


_SUMS = "float32 sums in another order; deep networks lose two or three of seven digits"
TOLERANCES: Mapping[str, Tolerance] = {
    "probabilities": Tolerance(1e-4, False, "between 0 and 1, displayed as a percentage with two decimals"),
    "logits": Tolerance(1e-4, True, _SUMS),
    "features": Tolerance(1e-4, True, _SUMS),
    "heatmaps": Tolerance(1e-4, True, f"{_SUMS}; only images without a tie, since heatmaps are of the top class"),
    KNOWN_SCORE: Tolerance(1e-4, False, "a cosine, between -1 and 1"),
}
"""Tolerances of files that compute the network in float32."""


def check_parity(
    net: Network,
    info: ModelInfo,
    path: Path,
    images: npt.NDArray[np.uint8],
    means: npt.NDArray[np.float32] | None = None,
    name: str | None = None,
) -> dict[str, dict[str, float | bool]]:
    """Compare the outputs of a model file in ONNX Runtime with those of its network in PyTorch.

    Args:
        net: the network that was exported.
        info: metadata of the model file.
        path: the model file.
        images: uint8 `(N, H, W, 3)`; real images give realistic differences.
        means: class means `(C, D)` of `known_score`, if the file has that output.
        name: what an error calls the file; its path by default.

    Returns:
        For each output, as in `environment.json`: the largest `difference`, whether it is `relative` to the largest
        value, and the difference `allowed`.

    Raises:
        ExportError: an output is missing, has another shape or differs by more than allowed, or the top class differs
            without a tie; names every such output.
    """
    exported, expected = onnx_outputs(path, images), _network_outputs(net, info, images, means)
    problems = _shape_problems(expected, exported)
    found: dict[str, dict[str, float | bool]] = {}
    if not problems:
        tolerances = _tolerances(expected, info)
        found = {
            output: {
                "difference": _largest_difference(output, expected, exported),
                "allowed": tolerances[output].allowed,
                "relative": tolerances[output].relative,
            }
            for output in expected
        }
        problems = _value_problems(found, tolerances, expected, exported)
    if problems:
        raise ExportError(
            f"The outputs of {name or path} do not match its network: on {len(images)} images, these differ: "
            f"{', '.join(problems)}.",
            "Report this as a bug, with the recipe; the trained weights are kept.",
        )
    return found


def _tolerances(expected: Outputs, info: ModelInfo) -> Mapping[str, Tolerance]:
    """`TOLERANCES`, and a larger one of probabilities for a network whose logits are too large for them.

    Training that nearly diverged can leave logits of millions. Numbers of that size are rounded in float32 by more than
    probabilities show, and differently by each library and processor.
    """
    usual = TOLERANCES["probabilities"]
    rounded = FLOAT32_STEP * float(np.abs(expected["logits"]).max()) / info.temperature
    if not rounded > usual.allowed:
        return TOLERANCES
    why = f"logits of up to {np.abs(expected['logits']).max():.0e}, rounded in float32"
    return {**TOLERANCES, "probabilities": Tolerance(min(rounded, 1.0), False, why)}


def rounding(before: Outputs, after: Outputs) -> dict[str, float]:
    """Compute the relative error of the outputs of a file with rounded weights.

    The error of an output is the root mean square of its difference divided by its own root mean square. Heatmaps are
    compared where both files have the same top class.

    Args:
        before: outputs of the original file.
        after: outputs of the file with rounded weights, for the same images.

    Raises:
        ExportError: an output is missing or has another shape.
    """
    if problems := _shape_problems(before, after):
        raise ExportError(
            f"The exported file does not have the outputs of its source: {', '.join(problems)}.",
            "Report this as a bug, with the name of the format.",
        )
    same_top = before["probabilities"].argmax(axis=1) == after["probabilities"].argmax(axis=1)
    differences = {}
    for name, old in before.items():
        rows = same_top if name == "heatmaps" else np.ones(len(old), dtype=bool)
        norm = float(np.sqrt(np.square(old[rows], dtype=np.float64).sum()))
        difference_norm = float(np.sqrt(np.square(after[name][rows] - old[rows], dtype=np.float64).sum()))
        differences[name] = difference_norm / max(norm, TINY)
    return differences


def onnx_outputs(path: Path, images: npt.NDArray[np.uint8]) -> Outputs:
    """Run the model file at `path` on images uint8 `(N, H, W, 3)`; return all outputs."""
    classifier = Classifier(path)
    names = [output.name for output in classifier.session.get_outputs()]
    return classifier.run_batches(images, names, _batch_size(images))


def _network_outputs(
    net: Network, info: ModelInfo, images: npt.NDArray[np.uint8], means: npt.NDArray[np.float32] | None
) -> Outputs:
    """Run the network in PyTorch on images uint8 `(N, H, W, 3)`; return the outputs of its model file."""
    model = pixel_model(net, info, means)
    with torch.inference_mode():
        parts = [model(torch.from_numpy(np.array(part))) for part in _batches(images)]
    names = model.output_names()
    return {name: torch.cat([part[index] for part in parts]).numpy() for index, name in enumerate(names)}


def _value_problems(
    found: Mapping[str, Mapping[str, float | bool]],
    tolerances: Mapping[str, Tolerance],
    expected: Outputs,
    exported: Outputs,
) -> list[str]:
    """Describe outputs that differ by more than the tolerances allow, and top classes that differ without a tie."""
    problems = [
        f"{name} by up to {record['difference']:.1e} (allowed: {_describe(tolerances[name])})"
        for name, record in found.items()
        if not record["difference"] <= tolerances[name].allowed  # also true for NaN
    ]
    larger = tolerances["probabilities"].allowed > TOLERANCES["probabilities"].allowed
    not_tie = _is_not_tie(expected["probabilities"], 2 * tolerances["probabilities"].allowed if larger else TIE)
    top_differs = expected["probabilities"].argmax(axis=1) != exported["probabilities"].argmax(axis=1)
    if count := int((not_tie & top_differs).sum()):
        problems.append(f"the top class {count} times (allowed: 0)")
    return problems


def _shape_problems(expected: Outputs, exported: Outputs) -> list[str]:
    """Describe outputs that are missing, unexpected or of another shape."""
    problems = [f"{name} (missing)" for name in expected if name not in exported]
    problems += [f"{name} (not expected)" for name in exported if name not in expected]
    return problems + [
        f"{name} (shape {exported[name].shape}, expected {value.shape})"
        for name, value in expected.items()
        if name in exported and exported[name].shape != value.shape
    ]


def _largest_difference(name: str, expected: Outputs, exported: Outputs) -> float:
    """The largest difference of an output, absolute or relative as in `TOLERANCES`."""
    rows = _is_not_tie(expected["probabilities"]) if name == "heatmaps" else np.ones(len(expected[name]), dtype=bool)
    if not rows.any():
        return 0.0
    difference = float(np.abs(expected[name][rows] - exported[name][rows]).max())
    largest = max(float(np.abs(expected[name]).max()), TINY)
    return difference / largest if TOLERANCES[name].relative else difference


def _describe(tolerance: Tolerance) -> str:
    return f"{tolerance.allowed:.0e}" + (" of the largest value" if tolerance.relative else "")


def _is_not_tie(probabilities: npt.NDArray[np.float32], tie: float = TIE) -> npt.NDArray[np.bool_]:
    """Whether the top class of each image is not a tie, bool `(N,)`."""
    top_two = np.sort(probabilities, axis=1)[:, -2:]
    return (
        np.asarray(top_two[:, -1] - top_two[:, 0] > tie)
        if probabilities.shape[1] > 1
        else np.ones(len(probabilities), bool)
    )


def _batches(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    size = _batch_size(images)
    return [np.ascontiguousarray(images[start : start + size]) for start in range(0, len(images), size)]


def _batch_size(images: npt.NDArray[np.uint8]) -> int:
    return min(BATCH, scored_batch_size(images.shape[1]))
