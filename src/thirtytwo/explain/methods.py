"""How maps are made: a table of methods, and which one is taken when none is named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import ModelFileError, RunError, ThirtytwoError, require
from thirtytwo.explain.occlusion import WINDOW, occlusion_maps
from thirtytwo.explain.overlay import Heat, Pixels
from thirtytwo.inference.classifier import Classifier
from thirtytwo.registry import Registry
from thirtytwo.rundir import RunDir

logger = logging.getLogger(__name__)

BATCH = 32
_TAKE_ANOTHER = "Choose another with --method; occlusion works with every model."

Labels = npt.NDArray[np.int64]
MakeMaps = Callable[[Pixels, Labels], Heat]
"""From pixels uint8 `(N, S, S, 3)` and classes int64 `(N,)` to maps float32 `(N, h, w)`, larger where more speaks for
the class, of any scale and sign."""


@dataclass(frozen=True)
class Method:
    """A way to make maps.

    `start` takes the model and the run directory that it lies in, if any, and raises a `ThirtytwoError` where the
    method cannot be used with them. `any_class` says whether it explains other classes than the most probable one.
    `grain` is how many places a side its maps tell apart, where they have more values than that.
    """

    about: str
    start: Callable[[Classifier, RunDir | None], MakeMaps]
    any_class: bool = True
    grain: int | None = None


METHODS: Registry[Method] = Registry("explanation method")
"""Every method by name."""


def choose_method(classifier: Classifier, run: RunDir | None, any_class: bool) -> tuple[str, str, MakeMaps]:
    """The method to take when none is named, why, and it started.

    Grad-CAM where the run's weights and PyTorch are there, else the maps in the model file, else occlusion;
    `any_class` says that it must explain other classes than the most probable one.
    """
    if run is None or not run.weights.is_file():
        missing = "the model comes without its run's weights, which Grad-CAM needs"
    elif not (find_spec("torch") and find_spec("captum")):
        missing = "PyTorch and Captum are not installed, which Grad-CAM needs"
    else:
        try:
            return (
                "gradcam",
                "the run's weights are here, and so is PyTorch",
                METHODS.get("gradcam").start(classifier, run),
            )
        except ThirtytwoError as error:  # also a recipe or weights that are damaged: the model file is there
            missing = error.message.rstrip(".")
            if not isinstance(error, ModelFileError):
                logger.warning("%s: %s Grad-CAM is left out.", run.path, error.message)
    if not any_class and maps_side(classifier) > 1:
        return "cam", f"the model file carries maps; {missing}", METHODS.get("cam").start(classifier, run)
    carried = "its own maps are of the most probable class only" if any_class else "it carries no maps"
    return "occlusion", f"{missing}, and {carried}", METHODS.get("occlusion").start(classifier, run)


def maps_side(classifier: Classifier) -> int:
    """Places a side that the `heatmaps` of a model file have; 0: it has none."""
    for output in classifier.session.get_outputs():
        if output.name == "heatmaps":
            return max((side for side in output.shape[1:] if isinstance(side, int)), default=0)
    return 0


def run_in_batches(classifier: Classifier, pictures: Pixels, output: str) -> npt.NDArray[np.float32]:
    """One output of the model for any number of pictures uint8 `(N, S, S, 3)`."""
    parts = [
        classifier.run(np.ascontiguousarray(pictures[at : at + BATCH]), (output,))[output]
        for at in range(0, len(pictures), BATCH)
    ]
    return np.concatenate(parts)


def _start_cam(classifier: Classifier, run: RunDir | None) -> MakeMaps:
    side = maps_side(classifier)
    if side < 2:
        found = "carries no heatmaps" if side == 0 else "carries heatmaps of a single place"
        raise ModelFileError(f"{classifier.path} {found}, which the method cam shows.", _TAKE_ANOTHER)

    def maps(pictures: Pixels, classes: Labels) -> Heat:
        if not np.array_equal(run_in_batches(classifier, pictures, "logits").argmax(axis=1), classes):
            raise ValueError("the maps in a model file are of the most probable class only")
        return run_in_batches(classifier, pictures, "heatmaps")

    return maps


def _start_occlusion(classifier: Classifier, run: RunDir | None) -> MakeMaps:
    return lambda pictures, classes: occlusion_maps(
        lambda tried: run_in_batches(classifier, tried, "logits"), pictures, classes
    )


def _weights(classifier: Classifier, run: RunDir | None, method: str) -> RunDir:
    """The run, found to have what gradients need."""
    if run is None or not run.weights.is_file():
        raise RunError(
            f"The method {method} needs a network's weights, and beside {classifier.path} is no weights.safetensors.",
            f"Give --model the run directory. {_TAKE_ANOTHER}",
        )
    for library in ("torch", "captum"):
        require(library, "train")
    return run


def _start_gradcam(classifier: Classifier, run: RunDir | None) -> MakeMaps:
    found = _weights(classifier, run, "gradcam")
    from thirtytwo.explain.gradients import read_gradients

    gradients = read_gradients(found, classifier.info)
    size = classifier.info.input_size
    shape = gradients.grad_cam(np.zeros((1, size, size, 3), dtype=np.uint8), np.zeros(1, dtype=np.int64)).shape[1:]
    if min(shape) < 2:
        raise ModelFileError(
            f"The last maps of this network ({classifier.info.architecture}) have no places to tell apart, "
            "which Grad-CAM needs.",
            _TAKE_ANOTHER,
        )
    return gradients.grad_cam


def _start_integrated(classifier: Classifier, run: RunDir | None) -> MakeMaps:
    found = _weights(classifier, run, "integrated")
    from thirtytwo.explain.gradients import read_gradients

    return read_gradients(found, classifier.info).integrated


METHODS.register("cam")(Method("class activation map, computed inside the model file", _start_cam, any_class=False))
METHODS.register("gradcam")(Method("Grad-CAM on the network's last maps; needs weights and PyTorch", _start_gradcam))
METHODS.register("integrated")(Method("integrated gradients; needs weights and PyTorch", _start_integrated, grain=8))
METHODS.register("occlusion")(
    Method("hides one part after the other; works with every model", _start_occlusion, grain=round(1 / WINDOW) + 1)
)
