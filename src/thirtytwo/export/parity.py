"""An exported model must say what its network says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from thirtytwo.errors import ExportError
from thirtytwo.export.onnx import pixel_model
from thirtytwo.models import Net
from thirtytwo.predict.modelfile import ModelInfo, open_session

TOLERANCE = 1e-4
TIE = 1e-5
BATCH = 128


def check_parity(net: Net, info: ModelInfo, path: Path, images: npt.NDArray[np.uint8]) -> float:
    """Compare ONNX Runtime with torch on real pictures uint8 `(N, H, W, 3)`; the largest difference of a probability.

    Raises:
        ExportError: a probability differs by more than 1e-4, or the top class differs where it is not a tie.
    """
    theirs = onnx_probabilities(path, images)
    model = pixel_model(net, info)
    with torch.inference_mode():
        parts = [model(torch.from_numpy(np.array(part)))[0].numpy() for part in _batches(images)]
    ours = np.concatenate(parts)
    difference = float(np.abs(ours - theirs).max())
    top_two = np.sort(ours, axis=1)[:, -2:]
    clear = top_two[:, 1] - top_two[:, 0] > TIE
    moved = int((clear & (ours.argmax(axis=1) != theirs.argmax(axis=1))).sum())
    if moved or not difference <= TOLERANCE:
        raise ExportError(
            f"{path} does not agree with the network it was made from: on {len(images)} pictures the top class differs "
            f"{moved} times and probabilities by up to {difference:.1e} (allowed: 0 and {TOLERANCE:.0e}).",
            "Please report this with the recipe; the trained weights are kept.",
        )
    return difference


def onnx_probabilities(path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the model file at `path` says of pictures uint8 `(N, H, W, 3)`: float32 `(N, C)`."""
    session, _ = open_session(path)
    parts = [session.run(["probabilities"], {"images": part})[0] for part in _batches(images)]
    return np.concatenate(parts)


def _batches(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    return [np.ascontiguousarray(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
