"""Accuracy under common corruptions at five severities (see `corruption_kinds`)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.split import limit
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import DataError
from thirtytwo.evaluation.corruption_kinds import CORRUPTIONS, FAMILIES
from thirtytwo.evaluation.evaluators import Context, Evaluator, Option, Request, register
from thirtytwo.evaluation.metrics import proportion
from thirtytwo.evaluation.sections import Cell, LineFigure, Panel, Section, Table
from thirtytwo.images.pixels import Pixels
from thirtytwo.text import interval, percent

STRENGTHS = (1, 2, 3, 4, 5)
MAX_IMAGES = 2000
"""Default number of images to corrupt; each is evaluated under every corruption at every severity."""
_SIDE = 32.0
_CHUNK = 128  # images processed at once; results depend on it, since each chunk has its own random generator


def corruption_names() -> list[str]:
    """Names of all corruptions, ordered by family."""
    order = {family: place for place, family in enumerate(FAMILIES)}
    return sorted(CORRUPTIONS.names(), key=lambda name: (order.get(CORRUPTIONS.get(name).family, len(order)), name))


def display_name(kind: str) -> str:
    """`gaussian_noise` as `Gaussian noise`, `jpeg` as `JPEG`."""
    return "JPEG" if kind == "jpeg" else kind.replace("_", " ").capitalize()


def corrupt(images: Pixels, name: str, strength: int, seed: int = 0) -> Pixels:
    """Return corrupted copies of images; deterministic for given arguments.

    Args:
        images: uint8 `(N, H, W, 3)` of any size.
        name: a name in `CORRUPTIONS`.
        strength: 1 to 5.
        seed: seed of the random numbers.

    Raises:
        UnknownNameError: there is no corruption with this name.
        DataError: the severity is not 1 to 5, or the images have another shape or type.
    """
    kind = CORRUPTIONS.get(name)
    if strength not in STRENGTHS:
        raise DataError(f"The severity of a corruption must be 1 to 5; found {strength}.")
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or 0 in images.shape[1:]:
        raise DataError(f"Images must be uint8 (N, H, W, 3); found {images.dtype} {images.shape}.")
    scale = min(images.shape[1:3]) / _SIDE
    corrupted = np.empty_like(images, order="C")
    for start in range(0, len(images), _CHUNK):
        random = np.random.default_rng([seed, zlib.crc32(name.encode()), strength, start])
        pixels = np.asarray(images[start : start + _CHUNK], dtype=np.float32) / np.float32(255)
        changed = kind.apply(pixels, kind.settings[strength - 1], random, scale)
        corrupted[start : start + _CHUNK] = np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
    return corrupted


def measure_corruptions(
    dataset: ImageSet,
    logits: Callable[[Pixels], npt.NDArray[np.float32]],
    *,
    seed: int = 0,
    names: Sequence[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a model under every corruption at every severity: the content of `corruptions.json`.

    Each accuracy has Wilson's 95 % interval. The interval of the mean is ± 1.96 standard errors, with an image's
    accuracy over all conditions as one observation.

    Args:
        dataset: labeled images.
        logits: maps images uint8 `(N, H, W, 3)` to logits `(N, C)`.
        seed: seed of the corruptions.
        names: corruptions to evaluate; by default all.
        tell: called with a progress message for each corruption.

    Raises:
        DataError: there are no images, or logits are not finite.
    """
    if not len(dataset):
        raise DataError("There are no images to corrupt.", "Choose another split with --split.")
    chosen = list(names) if names is not None else corruption_names()
    clean = _is_correct(dataset, dataset.images, logits, "no corruption")
    correct: dict[str, list[npt.NDArray[np.bool_]]] = {}
    for number, name in enumerate(chosen, start=1):
        if tell:
            tell(f"corruption {number} of {len(chosen)}: {name.replace('_', ' ')}")
        correct[name] = [
            _is_correct(dataset, corrupt(dataset.images, name, strength, seed), logits, f"{name} {strength}")
            for strength in STRENGTHS
        ]
    kinds = [_kind_record(name, answers) for name, answers in correct.items()]
    return {
        "n": len(dataset),
        "seed": seed,
        "strengths": list(STRENGTHS),
        "clean_accuracy": _accuracy(clean),
        "mean_corruption_accuracy": _mean_with_interval([one for answers in correct.values() for one in answers]),
        "families": {
            family: float(np.mean([kind["mean"] for kind in kinds if kind["family"] == family]))
            for family in dict.fromkeys(str(kind["family"]) for kind in kinds)
        },
        "kinds": kinds,
    }


def _kind_record(name: str, correct: list[npt.NDArray[np.bool_]]) -> dict[str, Any]:
    """Accuracy under one corruption; `correct` `(N,)` for each severity."""
    return {
        "kind": name,
        "family": CORRUPTIONS.get(name).family,
        "accuracy": [_accuracy(right) for right in correct],
        "mean": float(np.mean(correct)),
    }


def _mean_with_interval(correct: list[npt.NDArray[np.bool_]]) -> dict[str, Any]:
    """Mean accuracy over all conditions, with an image's mean as one observation."""
    per_image = np.mean(correct, axis=0)  # (N,)
    mean = float(per_image.mean())
    error = float(per_image.std(ddof=1)) / math.sqrt(len(per_image)) if len(per_image) > 1 else 1.0
    return {"value": mean, "ci95": [max(0.0, mean - 1.96 * error), min(1.0, mean + 1.96 * error)]}


def _is_correct(
    dataset: ImageSet, images: Pixels, logits: Callable[[Pixels], npt.NDArray[np.float32]], what: str
) -> npt.NDArray[np.bool_]:
    found = logits(images)
    if not np.isfinite(found).all():
        raise DataError(
            f"The network's logits under {what} contain NaN or infinity.",
            "The training diverged; lower the learning rate.",
        )
    return np.asarray(found.argmax(axis=1) == dataset.labels)


def _accuracy(right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    return proportion(int(right.sum()), len(right))


@register
class CorruptionsEvaluator(Evaluator):
    """Accuracy on corrupted images; stored in `corruptions.json`."""

    key, title, store = "corruptions", "Corruptions", "file"
    order = 4
    options = (
        Option(
            "corruptions",
            bool,
            False,
            "Also evaluate under noise, blur, weather and other corruptions, at five severities.",
        ),
        Option("corruption_images", int, MAX_IMAGES, "Corrupt at most this many images.", "N", least=1),
    )

    def check(self, request: Request) -> ImageSet:
        """Sample the images to corrupt.

        Raises:
            DataError: fewer images than classes were requested.
        """
        most = request.options.get("corruption_images", MAX_IMAGES)
        return limit(request.images, most, request.seed, "--corruption-images")

    def measure(self, context: Context) -> dict[str, Any]:
        """Evaluate every kind and severity of corruption."""
        sample: ImageSet = context.prepared
        context.log(f"evaluating corruptions on {len(sample):,} of {len(context.images):,} images")
        measured = measure_corruptions(sample, context.network.logits, seed=context.seed, tell=context.log)
        return {"dataset": context.dataset, "split": context.split} | measured

    def describe(self, record: Mapping[str, Any], split: str) -> Section:
        """Accuracy by kind and severity."""
        clean, mean = record["clean_accuracy"]["value"], record["mean_corruption_accuracy"]
        rows, family = [], ""
        for kind in record["kinds"]:
            name = Cell(display_name(kind["kind"]), note=kind["family"] if kind["family"] != family else "")
            family = kind["family"]
            cells = (
                Cell(
                    percent(cell["value"]),
                    tooltip=f"95\u00a0% interval {interval(cell['ci95'])}",
                    shade=round(max(0.0, 1.0 - cell["value"] / clean) if clean else 0.0, 3),
                )
                for cell in kind["accuracy"]
            )
            rows.append((name, *cells, Cell(percent(kind["mean"]))))
        return Section(
            sentences=(
                (
                    f"Accuracy on {split} images with common corruptions at five severities: {percent(mean['value'])} "
                    f"on average (95\u00a0% interval {interval(mean['ci95'])}), {percent(clean)} without corruption, "
                    f"n = {record['n']:,} for each cell, seed {record['seed']}."
                ),
                "Corruptions after Hendrycks and Dietterich 2019, reimplemented; not the files of CIFAR-10-C.",
            ),
            tables=(Table(("Kind", *map(str, record["strengths"]), "Mean"), tuple(rows)),),
            figure=_figure(record, split),
        )


def _figure(record: Mapping[str, Any], split: str) -> LineFigure:
    """Accuracy against strength for each kind of corruption, one panel per family."""
    kinds = record["kinds"]
    families = dict.fromkeys(kind["family"] for kind in kinds)
    panels = [
        Panel(
            family.capitalize(),
            tuple(
                (display_name(kind["kind"]), tuple(cell["value"] for cell in kind["accuracy"]))
                for kind in kinds
                if kind["family"] == family
            ),
        )
        for family in families
    ]
    clean = record["clean_accuracy"]["value"]
    return LineFigure(tuple(record["strengths"]), "strength", f"accuracy on {split}", tuple(panels), clean)
