"""Classify images with ONNX Runtime; files are decoded in threads while the model runs. Needs no PyTorch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.arguments import given_path, path_of
from thirtytwo.errors import ArgumentError, ImageError, ModelFileError, check_choice, check_least
from thirtytwo.images.decode import load_image
from thirtytwo.images.pixels import resize
from thirtytwo.inference.library import default_model, find_model, model_name
from thirtytwo.inference.session import INPUT, KNOWN_SCORE, MOST_THREADS, REQUIRED_OUTPUTS, open_session
from thirtytwo.inference.views import Tta, averaged, further_views
from thirtytwo.machine import cpu_count
from thirtytwo.reprs import Html, bar, card, table
from thirtytwo.text import NOT_RECORDED, as_html, listing, percent, readable
from thirtytwo.text import size as file_size

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from thirtytwo.inference.model_file import ModelInfo, TtaInfo


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A path or the bytes of an encoded image, and the name that results and errors give it, such as a table's row."""

    file: str
    source: str | Path | bytes


ImageLike: TypeAlias = "str | Path | bytes | NamedImage | Image.Image | npt.NDArray[np.uint8]"
"""A path, the bytes of an encoded image, either with a name, a Pillow image, or RGB pixels uint8 `(H, W, 3)`."""
_A_FORM = "a path, the bytes of an encoded image, a Pillow image or uint8 pixels (H, W, 3)"


_BATCH = 32  # larger ones gain nothing on a CPU and lose its cache
BATCH_PIXELS = 8 * 224**2
"""Largest number of pixels in a batch: the memory of a run grows with them, and ONNX Runtime keeps it."""
_CHUNK = 8  # images per task of a decoding thread


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's prediction for one image.

    `width` and `height` are the original size in pixels; `top` is the most probable class and `confidence` its
    calibrated probability, 0 to 1; `known` is false for an image that is out of distribution (unknown); `predictions`
    holds the most probable classes with their probabilities, in descending order. `file` is None for pixels and bytes.
    """

    file: str | None
    width: int
    height: int
    top: str
    confidence: float
    known: bool
    predictions: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """The entry of `thirtytwo predict --format json`."""
        return {
            "file": self.file,
            "width": self.width,
            "height": self.height,
            "top": self.top,
            "confidence": self.confidence,
            "known": self.known,
            "predictions": [{"class": name, "confidence": value} for name, value in self.predictions],
        }

    def _repr_html_(self) -> str:
        """The most probable classes with bars."""
        rows = [(readable(name), bar(value), percent(value)) for name, value in self.predictions]
        name = self.file or f"{self.width}×{self.height} pixels"
        return card(f"{name}: {readable(self.top)}{'' if self.known else ' (unknown)'}", table(rows))


@dataclass(frozen=True, slots=True)
class UnreadableImage:
    """An image that could not be read; `error` is the reason."""

    file: str | None
    error: str

    def as_dict(self) -> dict[str, Any]:
        """The entry of `thirtytwo predict --format json`."""
        return {"file": self.file, "error": self.error}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The error for a script that uses every result as a `Prediction`: it says why there is none."""
            missing = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(f"{missing}: {self.error}" if name in Prediction.__slots__ else missing)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One decoded image: `pixels` uint8 `(S, S, 3)` after resizing, with its file name and original size."""

    file: str | None
    width: int
    height: int
    pixels: npt.NDArray[np.uint8]


class Classifier:
    """An image classifier loaded from a model file. Thread-safe.

    `load("runs/cifar10-1").predict("photo.jpg")[0].top` is the predicted class of an image.
    """

    def __init__(self, path: Path | str, *, threads: int | None = None, batches: int = 1) -> None:
        check_least("batches", batches)
        check_least("threads", threads, 0)
        self.path = given_path("path", path)
        self._threads = threads or cpu_count(MOST_THREADS)
        self._batches = min(batches, self._threads)
        opened = open_session(self.path, threads=self._threads // self._batches)
        self.session: InferenceSession = opened[0]
        self.info: ModelInfo = opened[1]

    def __repr__(self) -> str:
        return f"Classifier({str(self.path)!r}, {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        """What the model file says about itself."""
        info = self.info
        rows = [
            ("Classes", f"{len(info.classes):,}: {listing(map(readable, info.classes), quoted=False)}"),
            ("Trained on", info.dataset),
            ("Network", info.architecture),
            ("Test accuracy", NOT_RECORDED if info.accuracy is None else percent(info.accuracy)),
            ("Input", f"{info.input_size}×{info.input_size} pixels, {info.resize}"),
            ("Marks unknown images", "no" if info.unknown_threshold is None else "yes"),
            ("File", f"{self.path} ({file_size(self.path.stat().st_size)})"),
        ]
        return card(f"Classifier {model_name(self.path)}", table((name, Html(as_html(value))) for name, value in rows))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return self.info.classes

    @property
    def largest_batch(self) -> int:
        """Number of images in one run of the model that bounds its memory, at least 1."""
        return max(1, BATCH_PIXELS // self.info.input_size**2)

    @property
    def tta(self) -> TtaInfo:
        """The further views of the model, and the confidence below which `tta="auto"` uses them."""
        from thirtytwo.inference.model_file import usual_tta  # imports pydantic, which takes a while

        return self.info.tta or usual_tta(self.info.input_size)

    def predict(
        self, images: ImageLike | Iterable[ImageLike], top: int = 5, *, tta: Tta = "off"
    ) -> list[Prediction | UnreadableImage]:
        """Predict the classes of images; one result per image, in order.

        A JPEG of a path or of bytes is decoded at a fraction of its size where it is much larger than the input, which
        saves time; the same image as Pillow image or pixels has slightly different probabilities.

        Args:
            images: one image or several: paths, encoded bytes, Pillow images, or RGB pixels
                uint8 `(H, W, 3)` or `(N, H, W, 3)`.
            top: number of classes in each prediction, at least 1.
            tta: images that are also classified mirrored and, where small, shifted: `off`, none; `auto`, those whose
                confidence is below the model's threshold; `all`. Whether an image is unknown is decided on one view.

        Returns:
            A `Prediction` for each image that can be read, else an `UnreadableImage`.

        Raises:
            ArgumentError: `top` is below 1, or `tta` none of these.
            ModelFileError: a probability is not a number.
        """
        return list(self.predict_iter(as_iterable(images), top, tta=tta))

    def predict_iter(
        self, images: Iterable[ImageLike], top: int = 5, *, batch: int | None = None, tta: Tta = "off"
    ) -> Iterator[Prediction | UnreadableImage]:
        """Like `predict`, but yield one result at a time; memory use does not grow with the number of images.

        At most `batch` images, at least 1, are in one run of the model, by default as many as bound its memory.
        """
        _check_options(top, tta)
        check_least("batch", batch)
        size = max(1, min(batch or _BATCH, self.largest_batch) // self._batches)
        return self._classify_batches(self._decode_ahead(images), size, top, tta)

    def _classify_batches(
        self, decoded: Iterator[DecodedImage | UnreadableImage], size: int, top: int, tta: Tta
    ) -> Iterator[Prediction | UnreadableImage]:
        batches = iter(lambda: list(islice(decoded, size)), [])
        if self._batches == 1:
            for entries in batches:
                yield from self._classify(entries, size, top, tta)
            return
        pool = ThreadPoolExecutor(self._batches, thread_name_prefix="thirtytwo-run")
        running: deque[Future[list[Prediction | UnreadableImage]]] = deque()
        try:
            for entries in batches:
                running.append(pool.submit(self._classify, entries, size, top, tta))
                if len(running) > self._batches:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def classify(self, pixels: npt.NDArray[np.uint8], top: int = 5, *, tta: Tta = "off") -> list[Prediction]:
        """Predict a decoded batch of the model's input size, uint8 `(N, S, S, 3)`, in one call.

        More than `largest_batch` images take much memory, which stays allocated.
        Starts no threads: for callers that decode and batch images themselves. `width` and `height` are `S`.
        """
        _check_options(top, tta)
        size = self.info.input_size
        return list(self._classify_readable([DecodedImage(None, size, size, image) for image in pixels], top, tta))

    def run(
        self, pixels: npt.NDArray[np.uint8], outputs: Sequence[str] = REQUIRED_OUTPUTS
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model on pixels of its input size, uint8 `(N, S, S, 3)`; return its raw outputs by name."""
        size = self.info.input_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
            raise ArgumentError(f"pixels must be uint8 (N, {size}, {size}, 3); found {pixels.dtype} {pixels.shape}.")
        return dict(zip(outputs, self.session.run(list(outputs), {INPUT: pixels}), strict=True))

    def run_batches(
        self, pixels: npt.NDArray[np.uint8], outputs: Sequence[str] = REQUIRED_OUTPUTS, size: int | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Like `run` for any number of images but none, in batches of at most `size`, by default by their pixels."""
        check_least("size", size)
        size = size or min(_BATCH, self.largest_batch)
        parts = [
            self.run(np.ascontiguousarray(pixels[start : start + size]), outputs)
            for start in range(0, len(pixels), size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def _decode_ahead(self, images: Iterable[ImageLike]) -> Iterator[DecodedImage | UnreadableImage]:
        """Decode images in threads ahead of use; yield them in order."""
        remaining = iter(images)
        first = list(islice(remaining, 2))
        if len(first) < 2:
            yield from self._decode(first)
            return
        remaining = chain(first, remaining)
        chunks = iter(lambda: list(islice(remaining, _CHUNK)), [])
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="thirtytwo-decode")
        try:
            lookahead = 2 * _BATCH // _CHUNK + self._threads
            ahead = deque(pool.submit(self._decode, chunk) for chunk in islice(chunks, lookahead))
            while ahead:
                decoded = ahead.popleft().result()
                ahead.extend(pool.submit(self._decode, chunk) for chunk in islice(chunks, 1))
                yield from decoded
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, chunk: Sequence[ImageLike]) -> list[DecodedImage | UnreadableImage]:
        return [self.decode(image) for image in chunk]

    def decode(self, image: ImageLike) -> DecodedImage | UnreadableImage:
        """Decode one image and resize it to the model's input size."""
        file = str(image) if isinstance(image, str | Path) else None
        name = None
        if isinstance(image, NamedImage):
            file = name = image.file
            image = image.source
        try:
            size, rule = self.info.input_size, self.info.resize
            if isinstance(image, np.ndarray):
                height, width = _validate_pixels(image).shape[:2]
                return DecodedImage(file, width, height, resize(image, size, rule))
            if not isinstance(image, str | bytes | os.PathLike | Image.Image):
                raise TypeError(f"an image is {_A_FORM}; found {type(image).__name__}")
            loaded = load_image(image, size, rule, name)
            return DecodedImage(file, loaded.width, loaded.height, loaded.pixels)
        except ImageError as error:
            return UnreadableImage(file, str(error))

    def _classify(
        self, batch: Sequence[DecodedImage | UnreadableImage], size: int, top: int, tta: Tta
    ) -> list[Prediction | UnreadableImage]:
        readable = [entry for entry in batch if isinstance(entry, DecodedImage)]
        results = self._classify_readable(readable, top, tta, size)
        return [entry if isinstance(entry, UnreadableImage) else next(results) for entry in batch]

    def _classify_readable(
        self, batch: Sequence[DecodedImage], top: int, tta: Tta, size: int | None = None
    ) -> Iterator[Prediction]:
        """Predictions of one batch; its further views are run `size` at a time, by default as `run_batches` does."""
        if not batch:
            return
        score_output = KNOWN_SCORE if self.info.unknown_score != "max_logit" else "logits"
        pixels = np.stack([entry.pixels for entry in batch])
        outputs = self.run(pixels, ("probabilities", score_output))
        probabilities, score = outputs["probabilities"], outputs[score_output]  # (N, C), and (N,) or (N, C)
        if not np.isfinite(probabilities).all():
            raise ModelFileError(
                f"{self.path} cannot predict: a probability that it computes is not a number.",
                "Its weights are too large or damaged: copy the file again, or train again with a lower learning rate.",
            )
        if tta != "off":
            probabilities = self._with_views(pixels, probabilities, tta, size)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top].tolist()
        known = self._known(score if score.ndim == 1 else score.max(axis=1))
        for entry, columns, row, is_known in zip(batch, order, probabilities, known, strict=True):
            best = tuple((self.classes[column], round(float(row[column]), 6)) for column in columns)
            yield Prediction(entry.file, entry.width, entry.height, *best[0], is_known, best)

    def _with_views(
        self, pixels: npt.NDArray[np.uint8], single: npt.NDArray[np.float32], tta: Tta, size: int | None
    ) -> npt.NDArray[np.float32]:
        """Probabilities `(N, C)` from several views of the images uint8 `(N, S, S, 3)` that get them."""
        chosen = np.flatnonzero((single.max(axis=1) < self.tta.threshold) | (tta == "all"))
        if not len(chosen):
            return single
        views = further_views(pixels[chosen], self.tta.shift)
        found = self.run_batches(np.concatenate([view for _, view in views]), ("probabilities",), size)["probabilities"]
        parts = np.split(found, len(views))
        weights = [weight for weight, _ in views]
        result = single.copy()
        own = (1 - sum(weights), single[chosen])
        result[chosen] = averaged([own, *zip(weights, parts, strict=True)])
        return result

    def _known(self, score: npt.NDArray[np.float32]) -> list[bool]:
        threshold = self.info.unknown_threshold
        return [True] * len(score) if threshold is None else [bool(value >= threshold) for value in score]


def load(name_or_path: str | Path | None = None, *, threads: int | None = None, batches: int = 1) -> Classifier:
    """Load a classifier from a model file, a run directory, a bundled model or a model of the Hugging Face hub.

    Args:
        name_or_path: a path, the name of a bundled model, or `hf:owner/name`, which is downloaded once; by default
            `default_model()`.
        threads: CPU threads for inference and for decoding; by default, and for 0, the available cores, at most 16.
        batches: number of batches that `predict_iter` and `predict` run at a time, each on its share of the threads;
            2 classify more images a second where there are many, and a single one later.

    Raises:
        ArgumentError: `name_or_path` is no text or path, `batches` is below 1, or `threads` below 0.
        UnknownNameError: there is no such file, directory or bundled model.
        ModelFileError: the file is not a thirtytwo model.
        RunError: the run directory has no model.
        OfflineError: a model of the hub is not on this machine, and the hub cannot be reached.
    """
    if name_or_path is not None:
        path_of("name_or_path", name_or_path)
    path = default_model() if name_or_path is None else find_model(name_or_path)
    return Classifier(path, threads=threads, batches=batches)


def as_iterable(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """The images to iterate over; one image is put in a list.

    Raises:
        TypeError: neither one image nor several, such as an open file, which would be read line by line.
    """
    if isinstance(images, str | os.PathLike | bytes | NamedImage | Image.Image):
        return [images]
    if isinstance(images, bytearray | memoryview):
        return [bytes(images)]
    if isinstance(images, np.ndarray) and images.ndim < 4:
        return [images]
    if hasattr(images, "read"):
        raise TypeError(f"images is an open file ({type(images).__name__}); give its path, or its bytes: file.read()")
    if not isinstance(images, Iterable):
        raise TypeError(f"images must be {_A_FORM}, or a list of these; found {type(images).__name__}")
    return images


def _check_options(top: int, tta: Tta) -> None:
    if not isinstance(top, int | np.integer):
        raise ArgumentError(f"top must be an integer of at least 1; found {top!r}.")
    check_least("top", top)
    check_choice("tta", tta, get_args(Tta))


def _validate_pixels(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ImageError(
            f"Pixels must be uint8 (H, W, 3); found {pixels.dtype} {pixels.shape}.", _conversion_of(pixels)
        )
    return pixels


def _conversion_of(pixels: npt.NDArray[Any]) -> str:
    """How to make RGB pixels of an array as other libraries have it."""
    if 0 in pixels.shape:
        return "The array is empty."
    if pixels.ndim == 2:
        return "Of gray values: np.stack([pixels] * 3, axis=-1)"
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[-1] != 3:
        return "With channels first: pixels.transpose(1, 2, 0)"
    if pixels.ndim == 3 and pixels.shape[-1] == 4:
        return "With an alpha channel: pixels[..., :3]"
    if pixels.ndim == 3 and pixels.shape[-1] == 3 and np.issubdtype(pixels.dtype, np.floating):
        return "From 0 to 1: (pixels * 255).round().astype(np.uint8)"
    return "Convert it to RGB from 0 to 255."
