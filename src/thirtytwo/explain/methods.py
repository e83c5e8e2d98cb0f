"""Registry of explanation methods, and the choice of the default method."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import ModelFileError, RunError, ThirtytwoError, require
from thirtytwo.evaluation.calibration import log_sum_exp
from thirtytwo.explain.faithfulness import blurred
from thirtytwo.explain.overlay import Heat
from thirtytwo.images.pixels import Pixels
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import model_argument
from thirtytwo.registry import Registry
from thirtytwo.rundir import RunDir

WINDOW = 3 / 8
STRIDE = 1 / 8
"""Sides of the occluded square and of its steps, as shares of the image's side."""

Logits = Callable[[Pixels], npt.NDArray[np.float32]]
"""Maps pixels uint8 `(M, S, S, 3)` to logits `(M, C)`."""


def occlusion_maps(logits: Logits, images: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
    """Compute occlusion maps float32 `(N, S, S)`: the decrease of a class's log-odds where a part is hidden.

    A blurred square slides over the image and its edges; a pixel's value is the mean decrease over the squares that
    cover it. After Zeiler and Fergus 2014 (arXiv 1311.2901).

    Args:
        logits: the model, from pixels to logits.
        images: uint8 `(N, S, S, 3)`.
        classes: int64 `(N,)`.
    """
    return np.stack([_occlusion_map(logits, *one) for one in zip(images, classes.tolist(), strict=True)])


def _occlusion_map(logits: Logits, image: Pixels, label: int) -> Heat:
    side = len(image)
    window, stride = max(1, round(WINDOW * side)), max(1, round(STRIDE * side))
    starts = np.arange(stride - window, side, stride)
    positions = np.arange(side)
    intervals = (positions >= starts[:, None]) & (positions < starts[:, None] + window)  # (P, S)
    masks = (intervals[:, None, :, None] & intervals[None, :, None, :]).reshape(-1, side, side)  # (P², S, S)
    occluded = np.where(masks[..., None], blurred(image), image)
    values = log_odds(logits(np.concatenate([image[None], occluded])), label)
    decrease = values[0] - values[1:]
    return np.asarray(np.tensordot(decrease, masks, axes=1) / masks.sum(axis=0), dtype=np.float32)


def log_odds(logits: npt.NDArray[np.float32], label: int) -> npt.NDArray[np.float64]:
    """Log-odds of a class, `(N, C)` → `(N,)`; unlike its probability, it does not saturate."""
    exact = logits.astype(np.float64)
    others = np.delete(exact, label, axis=1)
    if not others.shape[1]:
        return exact[:, label]
    return np.asarray(exact[:, label] - log_sum_exp(others))


logger = logging.getLogger(__name__)

BATCH = 32
_CHOOSE_ANOTHER = "Choose another with --method; occlusion works with every model."

Labels = npt.NDArray[np.int64]
ComputeMaps = Callable[[Pixels, Labels], Heat]
"""Maps pixels uint8 `(N, S, S, 3)` and classes int64 `(N,)` to maps float32 `(N, h, w)` of any scale and sign, larger
for stronger evidence."""


@dataclass(frozen=True)
class Method:
    """An explanation method.

    `start` takes the model and the run directory that contains it, if any, and returns the function that computes maps;
    it raises a `ThirtytwoError` if they do not support the method. `any_class`: the method can explain other classes
    than the most probable one. `grain` is the effective resolution of the maps in cells per side, if it is below their
    size.
    """

    about: str
    start: Callable[[Classifier, RunDir | None], ComputeMaps]
    any_class: bool = True
    grain: int | None = None


METHODS: Registry[Method] = Registry("explanation method")
"""All methods by name."""


def choose_method(classifier: Classifier, run: RunDir | None, any_class: bool) -> tuple[str, str, ComputeMaps]:
    """Choose the default method: its name, the reason for the choice, and its function.

    Grad-CAM if the run's weights and PyTorch are available, else the heatmaps in the model file, else occlusion.

    Args:
        classifier: the model.
        run: the run directory that contains the model, if any.
        any_class: whether the method must explain other classes than the most probable one.
    """
    if run is None or not run.weights.is_file():
        no_gradcam = "Grad-CAM needs the run's weights, which are not available"
    elif not (find_spec("torch") and find_spec("captum")):
        no_gradcam = "Grad-CAM needs PyTorch and Captum, which are not installed"
    else:
        try:
            return (
                "gradcam",
                "the run's weights and PyTorch are available",
                METHODS.get("gradcam").start(classifier, run),
            )
        except ThirtytwoError as error:  # also damaged recipes or weights: other methods need only the model file
            no_gradcam = error.message.rstrip(".")
            if not isinstance(error, ModelFileError):
                logger.warning("%s: %s Grad-CAM is not used.", run.path, error.message)
    if not any_class and maps_side(classifier) > 1:
        return "cam", f"the model file has heatmaps; {no_gradcam}", METHODS.get("cam").start(classifier, run)
    no_cam = (
        "the model file has heatmaps of the most probable class only" if any_class else "the model file has no heatmaps"
    )
    return "occlusion", f"{no_gradcam}, and {no_cam}", METHODS.get("occlusion").start(classifier, run)


def maps_side(classifier: Classifier) -> int:
    """Side of the `heatmaps` of a model file in cells; 0 if it has none."""
    for output in classifier.session.get_outputs():
        if output.name == "heatmaps":
            return max((side for side in output.shape[1:] if isinstance(side, int)), default=0)
    return 0


def run_in_batches(classifier: Classifier, images: Pixels, output: str) -> npt.NDArray[np.float32]:
    """Run the model on any number of images uint8 `(N, S, S, 3)`; return one output."""
    return classifier.run_batches(images, (output,), BATCH)[output]


def _start_cam(classifier: Classifier, run: RunDir | None) -> ComputeMaps:
    side = maps_side(classifier)
    if side < 2:
        found = "has no heatmaps" if side == 0 else "has heatmaps of a single cell"
        raise ModelFileError(f"{model_argument(classifier.path)} {found}, which the method cam needs.", _CHOOSE_ANOTHER)

    def maps(images: Pixels, classes: Labels) -> Heat:
        if not np.array_equal(run_in_batches(classifier, images, "logits").argmax(axis=1), classes):
            raise ValueError("a model file has heatmaps of the most probable class only")
        return run_in_batches(classifier, images, "heatmaps")

    return maps


def _start_occlusion(classifier: Classifier, run: RunDir | None) -> ComputeMaps:
    return lambda images, classes: occlusion_maps(
        lambda tried: run_in_batches(classifier, tried, "logits"), images, classes
    )


def _run_with_weights(classifier: Classifier, run: RunDir | None, method: str) -> RunDir:
    """Check that the run and the installation have what gradient methods need."""
    if run is None or not run.weights.is_file():
        raise RunError(
            f"The method {method} needs the network's weights: {model_argument(classifier.path)} has no "
            "weights.safetensors beside it.",
            f"Give --model a run directory. {_CHOOSE_ANOTHER}",
        )
    for library in ("torch", "captum"):
        require(library, "train")
    return run


def _start_gradcam(classifier: Classifier, run: RunDir | None) -> ComputeMaps:
    found = _run_with_weights(classifier, run, "gradcam")
    from thirtytwo.explain.gradients import read_gradients

    gradients = read_gradients(found, classifier.info)
    size = classifier.info.input_size
    shape = gradients.grad_cam(np.zeros((1, size, size, 3), dtype=np.uint8), np.zeros(1, dtype=np.int64)).shape[1:]
    if min(shape) < 2:
        raise ModelFileError(
            f"The last feature maps of this network ({classifier.info.architecture}) have a single cell; "
            "Grad-CAM needs at least 2 per side.",
            _CHOOSE_ANOTHER,
        )
    return gradients.grad_cam


def _start_integrated(classifier: Classifier, run: RunDir | None) -> ComputeMaps:
    found = _run_with_weights(classifier, run, "integrated")
    from thirtytwo.explain.gradients import read_gradients

    return read_gradients(found, classifier.info).integrated


METHODS.register("cam")(Method("class activation map, computed inside the model file", _start_cam, any_class=False))
METHODS.register("gradcam")(
    Method("Grad-CAM on the network's last feature maps; needs weights and PyTorch", _start_gradcam)
)
METHODS.register("integrated")(Method("integrated gradients; needs weights and PyTorch", _start_integrated, grain=8))
METHODS.register("occlusion")(
    Method("occludes one part after another; works with every model", _start_occlusion, grain=round(1 / WINDOW) + 1)
)
