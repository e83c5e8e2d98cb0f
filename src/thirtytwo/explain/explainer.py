"""Compute heatmaps that explain predictions, with faithfulness scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.errors import ModelFileError, UnknownNameError, did_you_mean
from thirtytwo.explain.faithfulness import Score, score_maps
from thirtytwo.explain.methods import METHODS, Labels, choose_method, run_in_batches
from thirtytwo.explain.overlay import Heat, resized_map
from thirtytwo.images.pixels import Pixels
from thirtytwo.inference.classifier import Classifier, DecodedImage, ImageLike, UnreadableImage, as_iterable
from thirtytwo.inference.library import default_model, find_model, model_argument
from thirtytwo.rundir import RunDir

_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The explanation of one prediction.

    `label` is the explained class and `confidence` its calibrated probability, 0 to 1; `top` is the most probable
    class; `known` is false for an image that is out of distribution (unknown). `pixels` uint8 `(S, S, 3)` is the input
    of the model; `width` × `height` is the original size. `heat` float32 `(S, S)` is 1 where the evidence for the
    class is strongest and 0 where there is none. `score` is None if it was not requested. `file` is None for pixels
    and bytes.
    """

    file: str | None
    width: int
    height: int
    label: str
    confidence: float
    top: str
    known: bool
    method: str
    pixels: Pixels
    heat: Heat
    score: Score | None

    def as_dict(self) -> dict[str, Any]:
        """The entry of `explanations.json`, without the heatmap."""
        return {
            "file": self.file,
            "width": self.width,
            "height": self.height,
            "class": self.label,
            "confidence": self.confidence,
            "top": self.top,
            "known": self.known,
            "method": self.method,
            **(self.score.as_dict() if self.score else {}),
        }


class Explainer:
    """Explains the predictions of a model with one method.

    `Explainer("runs/cifar10").explain(["photo.jpg"])` yields an `Explanation` with its `heat`.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        method: str | None = None,
        *,
        class_name: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Load a model like `thirtytwo.load` and choose the method.

        Args:
            model: the name of a bundled model, a run directory or a model file; by default that of `thirtytwo.load`.
            method: a name in `METHODS`; by default the first of gradcam, cam and occlusion that the model supports.
            class_name: the class to explain; by default the most probable class of each image.
            threads: CPU threads of one run of the model; by default the available cores, at most 16.

        Raises:
            UnknownNameError: there is no such model, method or class; suggests close matches.
            ModelFileError: the file is not a thirtytwo model, or the method does not support it.
            RunError: the method needs the run's weights.
            MissingExtraError: the method needs PyTorch.
        """
        chosen = METHODS.get(method) if method is not None else None
        path = default_model() if model is None else find_model(model)
        self.classifier = Classifier(path, threads=threads)
        self.class_name = class_name
        self._class = None if class_name is None else self._class_index(class_name)
        run = _run_directory(path)
        if method is None or chosen is None:
            self.method, self.reason, self._compute_maps = choose_method(self.classifier, run, class_name is not None)
        else:
            if class_name is not None and not chosen.any_class:
                raise ModelFileError(
                    f"The method {method} explains the most probable class only, but --class is {class_name!r}.",
                    "Remove --class, or choose --method gradcam, integrated or occlusion.",
                )
            self.method, self.reason, self._compute_maps = method, "requested", chosen.start(self.classifier, run)
        self._grain = METHODS.get(self.method).grain

    def raw_maps(self, pixels: Pixels, classes: Labels) -> Heat:
        """Compute the method's raw maps, float32 `(N, h, w)` of any scale, for pixels uint8 `(N, S, S, 3)`."""
        return np.nan_to_num(self._compute_maps(pixels, classes))

    def maps(self, pixels: Pixels, classes: Labels | None = None) -> Heat:
        """Compute heatmaps float32 `(N, S, S)`, 0 to 1, for pixels of the model's input size.

        Args:
            pixels: uint8 `(N, S, S, 3)`.
            classes: int64 `(N,)`; by default `class_name`, else the most probable classes.
        """
        if classes is None:
            classes = self._classes(run_in_batches(self.classifier, pixels, "probabilities"))
        return as_heat(self.raw_maps(pixels, classes), pixels.shape[1])

    def explain(
        self, images: ImageLike | Iterable[ImageLike], *, score: bool = True, seed: int = 0
    ) -> Iterator[Explanation | UnreadableImage]:
        """Explain images; yields one result per image, in order, an `UnreadableImage` if the image cannot be read.

        Args:
            images: one image or several: paths, encoded bytes, Pillow images, or RGB pixels
                uint8 `(H, W, 3)` or `(N, H, W, 3)`.
            score: also compute deletion and insertion scores of the heatmap.
            seed: seed of the random maps that the score is compared with.
        """
        remaining = iter(as_iterable(images))
        while batch := list(islice(remaining, _BATCH)):
            decoded = [self.classifier.decode(image) for image in batch]
            readable = [one for one in decoded if not isinstance(one, UnreadableImage)]
            results = iter(self._explain(readable, score, seed) if readable else ())
            for one in decoded:
                yield one if isinstance(one, UnreadableImage) else next(results)

    def _explain(self, decoded: list[DecodedImage], score: bool, seed: int) -> Iterator[Explanation]:
        pixels = np.stack([one.pixels for one in decoded])
        predictions = self.classifier.classify(pixels, top=1)
        probabilities = run_in_batches(self.classifier, pixels, "probabilities")
        classes = self._classes(probabilities)
        raw = self.raw_maps(pixels, classes)
        heats = as_heat(raw, pixels.shape[1])
        model = partial(run_in_batches, self.classifier, output="probabilities")
        for index, (image, prediction) in enumerate(zip(decoded, predictions, strict=True)):
            label = int(classes[index])
            one = slice(index, index + 1)
            scores = (
                score_maps(model, pixels[one], raw[one], classes[one], grain=self._grain, seed=seed)[0]
                if score
                else None
            )
            yield Explanation(
                file=image.file,
                width=image.width,
                height=image.height,
                label=self.classifier.classes[label],
                confidence=round(float(probabilities[index, label]), 6),
                top=prediction.top,
                known=prediction.known,
                method=self.method,
                pixels=image.pixels,
                heat=heats[index],
                score=scores,
            )

    def _classes(self, probabilities: Heat) -> Labels:
        if self._class is not None:
            return np.full(len(probabilities), self._class, dtype=np.int64)
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)

    def _class_index(self, name: str) -> int:
        if name not in self.classifier.classes:
            model = model_argument(self.classifier.path)
            raise UnknownNameError(f"{model} has no class {name!r}.", did_you_mean(name, self.classifier.classes))
        return self.classifier.classes.index(name)


def as_heat(maps: Heat, size: int) -> Heat:
    """Convert maps `(N, h, w)` of any scale to heatmaps float32 `(N, size, size)` in 0 to 1.

    Maps are enlarged by bicubic interpolation, negative values set to 0, and the rest scaled to 0..1. A constant map
    becomes 0.
    """
    heats = np.zeros((len(maps), size, size), dtype=np.float32)
    for heat, values in zip(heats, maps, strict=True):
        enlarged = np.maximum(resized_map(values, size, size), 0.0)
        low, high = float(enlarged.min()), float(enlarged.max())
        if high - low > 1e-6 * max(high, 1e-30):
            heat[:] = (enlarged - low) / (high - low)
    return heats


def _run_directory(model: Path) -> RunDir | None:
    """The run directory that contains the model file; None if there is none."""
    run = RunDir(model.parent)
    return run if model.name == run.onnx.name and run.recipe.is_file() else None
