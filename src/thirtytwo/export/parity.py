"""An exported model must say what its network says, in every output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from thirtytwo.errors import ExportError
from thirtytwo.export.onnx import pixel_model
from thirtytwo.inference.model_file import KNOWN_SCORE, ModelInfo, open_session
from thirtytwo.models import Net

TIE = 1e-5
"""Images whose two largest probabilities are nearer than this may get either class."""
BATCH = 128
TINY = float(np.finfo(np.float32).tiny)

Outputs = dict[str, npt.NDArray[np.float32]]
"""What a model says of images, by the name of the output; each has a row an image."""


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be from the network's: `allowed`, where `relative` as a part of its largest value."""

    allowed: float
    relative: bool
    why: str


_SUMS = "float32 sums of many products in another order; deep networks lose two or three of its seven digits"
TOLERANCES: Mapping[str, Tolerance] = {
    "probabilities": Tolerance(1e-4, False, "they lie between 0 and 1, and are shown with two digits of a percentage"),
    "logits": Tolerance(1e-4, True, _SUMS),
    "features": Tolerance(1e-4, True, _SUMS),
    "heatmaps": Tolerance(1e-4, True, f"{_SUMS}; of images whose top class is no tie, since they show that class"),
    KNOWN_SCORE: Tolerance(1e-4, False, "a cosine, between -1 and 1"),
}
"""For files that compute what the network computes, in float32."""


def check_parity(
    net: Net,
    info: ModelInfo,
    path: Path,
    images: npt.NDArray[np.uint8],
    means: npt.NDArray[np.float32] | None = None,
) -> dict[str, float]:
    """Compare ONNX Runtime with torch on real images uint8 `(N, H, W, 3)`, output by output.

    `means` are the class means `(C, D)` of `known_score`, where the file has it. Gives the largest difference of each
    output, as its tolerance measures it.

    Raises:
        ExportError: an output is missing, of another shape or further off than `TOLERANCES` allow, or the top class
            differs where it is not a tie; names every such output.
    """
    theirs = onnx_outputs(path, images)
    model = pixel_model(net, info, means)
    with torch.inference_mode():
        parts = [model(torch.from_numpy(np.array(part))) for part in _batches(images)]
    names = model.output_names()
    ours = {name: torch.cat([part[place] for part in parts]).numpy() for place, name in enumerate(names)}
    faults = _misshapen(ours, theirs)
    found: dict[str, float] = {}
    if not faults:
        found = {name: _furthest(name, ours, theirs) for name in names}
        faults = [
            f"{name} by up to {found[name]:.1e} (allowed: {_told(TOLERANCES[name])})"
            for name in names
            if not found[name] <= TOLERANCES[name].allowed  # NaN is never within
        ]
        clear = _clear(ours["probabilities"])
        moved = ours["probabilities"].argmax(axis=1) != theirs["probabilities"].argmax(axis=1)
        if count := int((clear & moved).sum()):
            faults.append(f"the top class {count} times (allowed: 0)")
    if faults:
        raise ExportError(
            f"{path} does not agree with the network it was made from: on {len(images)} images there differ "
            f"{', '.join(faults)}.",
            "Please report this with the recipe; the trained weights are kept.",
        )
    return found


def parity_record(found: Mapping[str, float]) -> dict[str, dict[str, float | bool]]:
    """What `check_parity` found, with what is allowed, for `environment.json`."""
    return {
        name: {
            "difference": value,
            "allowed": TOLERANCES[name].allowed,
            "relative": TOLERANCES[name].relative,
        }
        for name, value in found.items()
    }


def rounding(before: Outputs, after: Outputs) -> dict[str, float]:
    """How far the outputs of a file with rounded weights are from those of the file it is made of.

    Of each output the root mean square of the difference, as a part of the output's own; of heatmaps where both
    files have the same top class.

    Raises:
        ExportError: an output is missing or of another shape.
    """
    if faults := _misshapen(before, after):
        raise ExportError(
            f"The new file does not have the outputs of the one it is made of: {', '.join(faults)}.",
            "Please report this with the format's name.",
        )
    same = before["probabilities"].argmax(axis=1) == after["probabilities"].argmax(axis=1)
    found = {}
    for name, old in before.items():
        rows = same if name == "heatmaps" else np.ones(len(old), dtype=bool)
        length = float(np.sqrt(np.square(old[rows], dtype=np.float64).sum()))
        apart = float(np.sqrt(np.square(after[name][rows] - old[rows], dtype=np.float64).sum()))
        found[name] = apart / max(length, TINY)
    return found


def onnx_outputs(path: Path, images: npt.NDArray[np.uint8]) -> Outputs:
    """Everything that the model file at `path` says of images uint8 `(N, H, W, 3)`."""
    session, _ = open_session(path)
    names = [output.name for output in session.get_outputs()]
    parts = [session.run(names, {"images": part}) for part in _batches(images)]
    return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(names)}


def _misshapen(ours: Outputs, theirs: Outputs) -> list[str]:
    """Outputs that only one has, or of different shapes."""
    faults = [f"{name} (missing)" for name in ours if name not in theirs]
    faults += [f"{name} (not expected)" for name in theirs if name not in ours]
    return faults + [
        f"{name} (shape {theirs[name].shape}, expected {value.shape})"
        for name, value in ours.items()
        if name in theirs and theirs[name].shape != value.shape
    ]


def _furthest(name: str, ours: Outputs, theirs: Outputs) -> float:
    """The largest difference of an output, as its tolerance measures it."""
    rows = _clear(ours["probabilities"]) if name == "heatmaps" else np.ones(len(ours[name]), dtype=bool)
    if not rows.any():
        return 0.0
    difference = float(np.abs(ours[name][rows] - theirs[name][rows]).max())
    largest = max(float(np.abs(ours[name]).max()), TINY)
    return difference / largest if TOLERANCES[name].relative else difference


def _told(tolerance: Tolerance) -> str:
    return f"{tolerance.allowed:.0e}" + (" of the largest value" if tolerance.relative else "")


def _clear(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whose top class is not a tie, `(N,)`."""
    top_two = np.sort(probabilities, axis=1)[:, -2:]
    return (
        np.asarray(top_two[:, -1] - top_two[:, 0] > TIE)
        if probabilities.shape[1] > 1
        else np.ones(len(probabilities), bool)
    )


def _batches(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    return [np.ascontiguousarray(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
