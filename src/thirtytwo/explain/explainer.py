"""Where a model looks: maps of pictures, with a score of how much each means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.errors import ImageError, ModelFileError, UnknownNameError, did_you_mean
from thirtytwo.explain.faithfulness import Score, score_maps
from thirtytwo.explain.methods import METHODS, Labels, choose_method, run_in_batches
from thirtytwo.explain.overlay import Heat, Pixels, resized_map
from thirtytwo.images.decode import load_image, resize
from thirtytwo.inference.classifier import Classifier, Picture, Unreadable, default_model, find_model
from thirtytwo.rundir import RunDir

_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where a model looked in one picture.

    `label` is the class explained and `confidence` its calibrated probability; `top` is the most probable class and
    `known` is false where the picture is unlike anything in training. `pixels` uint8 `(S, S, 3)` is what the model saw
    of the picture, whose own size is `width` × `height`; `heat` float32 `(S, S)` is 1 where most speaks for the class
    and 0 where least does. `score` is None where none was asked for. `file` is None for pixels and bytes.
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
        """The entry of `explanations.json`, without the pictures."""
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
    """A model and a method, ready to explain pictures.

    `Explainer("runs/cifar10").explain(["photo.jpg"])` gives an `Explanation` with its `heat`.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        method: str | None = None,
        *,
        class_name: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Open a model as `thirtytwo.load` does and settle the method.

        Args:
            model: a bundled name, a run directory or a model file; by default what `predict` takes.
            method: a name in `METHODS`; by default the first that can be used of gradcam, cam and occlusion.
            class_name: explain this class; by default the most probable one of each picture.
            threads: of one run of the model; by default all this process may use.

        Raises:
            UnknownNameError: no such model, method or class; names close matches.
            ModelFileError: not one of our models, or one that the method cannot be used with.
            RunError: the method needs the run's weights.
            MissingExtraError: the method needs PyTorch.
        """
        named = METHODS.get(method) if method is not None else None
        path = default_model() if model is None else find_model(model)
        self.classifier = Classifier(path, threads=threads)
        self.class_name = class_name
        self._class = None if class_name is None else self._position(class_name)
        run = _run_of(path)
        if method is None or named is None:
            self.method, self.reason, self._make = choose_method(self.classifier, run, class_name is not None)
        else:
            if class_name is not None and not named.any_class:
                raise ModelFileError(
                    f"The method {method} shows the most probable class only, and --class asks for {class_name!r}.",
                    "Leave one of them out, or choose gradcam, integrated or occlusion.",
                )
            self.method, self.reason, self._make = method, "asked for", named.start(self.classifier, run)
        self._grain = METHODS.get(self.method).grain

    def raw_maps(self, pixels: Pixels, classes: Labels) -> Heat:
        """Maps as the method gives them, float32 `(N, h, w)` of any scale, for pixels uint8 `(N, S, S, 3)`."""
        return np.nan_to_num(self._make(pixels, classes))

    def maps(self, pixels: Pixels, classes: Labels | None = None) -> Heat:
        """Heat float32 `(N, S, S)`, 0 to 1, for pixels uint8 `(N, S, S, 3)` of the model's input size.

        Args:
            pixels: uint8 `(N, S, S, 3)`.
            classes: int64 `(N,)`; by default `class_name`, else the most probable ones.
        """
        if classes is None:
            classes = self._classes(run_in_batches(self.classifier, pixels, "probabilities"))
        return as_heat(self.raw_maps(pixels, classes), pixels.shape[1])

    def explain(
        self, images: Picture | Iterable[Picture], *, score: bool = True, seed: int = 0
    ) -> Iterator[Explanation | Unreadable]:
        """One result for each picture, in order; unreadable files come as `Unreadable`.

        Args:
            images: one picture or several: paths, encoded bytes, or RGB pixels uint8 `(H, W, 3)` or `(N, H, W, 3)`.
            score: also follow the class's probability as the hottest pixels are taken away and given back.
            seed: fixes the random maps that the score is held against.
        """
        single = isinstance(images, str | Path | bytes) or (isinstance(images, np.ndarray) and images.ndim < 4)
        remaining: Iterator[Any] = iter([images] if single else images)  # type: ignore[arg-type]
        while batch := list(islice(remaining, _BATCH)):
            read = [self._read(picture) for picture in batch]
            fine = [one for one in read if not isinstance(one, Unreadable)]
            results = iter(self._explain(fine, score, seed) if fine else ())
            for one in read:
                yield one if isinstance(one, Unreadable) else next(results)

    def _explain(
        self, read: list[tuple[str | None, int, int, Pixels]], score: bool, seed: int
    ) -> Iterator[Explanation]:
        pixels = np.stack([one[3] for one in read])
        predictions = self.classifier.classify(pixels, top=1)
        probabilities = run_in_batches(self.classifier, pixels, "probabilities")
        classes = self._classes(probabilities)
        raw = self.raw_maps(pixels, classes)
        heats = as_heat(raw, pixels.shape[1])
        model = partial(run_in_batches, self.classifier, output="probabilities")
        for at, ((file, width, height, seen), said) in enumerate(zip(read, predictions, strict=True)):
            label = int(classes[at])
            one = slice(at, at + 1)
            scores = (
                score_maps(model, pixels[one], raw[one], classes[one], grain=self._grain, seed=seed)[0]
                if score
                else None
            )
            yield Explanation(
                file=file,
                width=width,
                height=height,
                label=self.classifier.classes[label],
                confidence=round(float(probabilities[at, label]), 6),
                top=said.top,
                known=said.known,
                method=self.method,
                pixels=seen,
                heat=heats[at],
                score=scores,
            )

    def _read(self, picture: Picture) -> tuple[str | None, int, int, Pixels] | Unreadable:
        info = self.classifier.info
        if isinstance(picture, np.ndarray):
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
                return Unreadable(None, f"Pixels must be uint8 (H, W, 3); found {picture.dtype} {picture.shape}.")
            return None, picture.shape[1], picture.shape[0], resize(picture, info.input_size, info.resize)
        file = str(picture) if isinstance(picture, str | Path) else None
        try:
            loaded = load_image(picture, info.input_size, info.resize)
        except ImageError as error:
            return Unreadable(file, str(error))
        return file, loaded.width, loaded.height, loaded.pixels

    def _classes(self, probabilities: Heat) -> Labels:
        if self._class is not None:
            return np.full(len(probabilities), self._class, dtype=np.int64)
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)

    def _position(self, name: str) -> int:
        if name not in self.classifier.classes:
            raise UnknownNameError(
                f"{self.classifier.path} knows no class {name!r}.", did_you_mean(name, self.classifier.classes)
            )
        return self.classifier.classes.index(name)


def as_heat(maps: Heat, size: int) -> Heat:
    """Maps `(N, h, w)` of any scale as heat float32 `(N, size, size)`: what speaks for the class, from 0 to 1.

    Enlarged by bicubic interpolation; what speaks against it is cut off, and the rest is stretched from 0 to 1. A map
    that is the same everywhere becomes 0.
    """
    heats = np.zeros((len(maps), size, size), dtype=np.float32)
    for heat, values in zip(heats, maps, strict=True):
        enlarged = np.maximum(resized_map(values, size, size), 0.0)
        low, high = float(enlarged.min()), float(enlarged.max())
        if high - low > 1e-6 * max(high, 1e-30):
            heat[:] = (enlarged - low) / (high - low)
    return heats


def _run_of(model: Path) -> RunDir | None:
    """The run directory that a model file lies in, if it does."""
    run = RunDir(model.parent)
    return run if model.name == run.onnx.name and run.recipe.is_file() else None
