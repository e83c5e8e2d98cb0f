"""Rendering of images: at display size, as model input, and with a heatmap overlay."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import IO

import numpy as np
import streamlit as st

from thirtytwo.app import look_twice
from thirtytwo.app.certainty import certainty
from thirtytwo.app.library import Entry, load_classifier
from thirtytwo.app.photos import RESULTS, InputImage
from thirtytwo.app.problems import plain
from thirtytwo.errors import ImageError
from thirtytwo.explain.explainer import as_heat
from thirtytwo.explain.methods import maps_side, occlusion_maps
from thirtytwo.explain.overlay import Heat, map_to_original, overlay
from thirtytwo.images.decode import Loaded, load_image, load_preview
from thirtytwo.images.pixels import Pixels, ResizeRule, seen_box
from thirtytwo.images.render import PIXELATED_SIDE, data_uri, for_display, is_pixelated, jpeg, png
from thirtytwo.inference.classifier import Classifier, Prediction, UnreadableImage
from thirtytwo.inference.output import write_csv, write_json
from thirtytwo.inference.views import Tta
from thirtytwo.io import free_name
from thirtytwo.machine import cpu_count
from thirtytwo.text import CsvWriter, csv_text

SIDE = 360
"""Longer side of a displayed image, in pixels."""
OVERLAY_SIDE = 1024
"""Longer side of an overlay to download, in pixels."""
_JPEG_QUALITY = 88
_WHOLE = 0.97
"""Ratio of the shorter to the longer side from which an image counts as square: less than 3 % is cut off."""
_MAX_HEATMAPS = 64
"""Number of heatmaps kept for all sessions; one of 288×288 pixels takes 0.3 MB."""
_MAX_INPUTS, _MAX_VIEWS = 16, 32
"""Numbers of decoded images kept for all sessions, as models see and as people see them; one takes up to 0.4 MB."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """An image for display uint8 `(H, W, 3)`, optionally with a heatmap, and the model's input `(S, S, 3)`.

    `cut` says which parts of the image the model does not look at; empty if it looks at the whole image.
    """

    image: Pixels
    model_input: Pixels
    cut: str = ""


def render(entry: Entry, image: InputImage, *, heat: bool, side: int = SIDE, mark: bool = False) -> Rendered:
    """Render a readable image with a longer side of about `side` pixels.

    With `mark`, the square that the model looks at is drawn on an image of which it leaves out a part.
    """
    classifier = load_classifier(entry)
    info = classifier.info
    displayed = view(image, side)
    loaded = _input(info.input_size, info.resize, image.digest, image)
    if heat:
        heatmap = heatmap_of(entry, classifier, loaded.pixels)
        displayed = overlay(displayed, map_to_original(heatmap, displayed.shape[0], displayed.shape[1], info.resize))
    cut = cut_off(loaded.width, loaded.height, info.resize)
    return Rendered(with_square(displayed) if mark and cut else displayed, loaded.pixels, cut)


def cut_off(width: int, height: int, rule: ResizeRule) -> str:
    """The parts of an upright image that a model does not look at, such as `the sides`; empty if there are none."""
    if rule != "crop" or min(width, height) >= _WHOLE * max(width, height):
        return ""
    return "the sides" if width > height else "the top and the bottom"


def with_square(image: Pixels) -> Pixels:
    """A copy of an image uint8 `(H, W, 3)` with its central square marked: the rest is darker, the edge is white."""
    height, width = image.shape[:2]
    left, top, right, bottom = seen_box(width, height, "crop")
    marked = (image // 2).astype(np.uint8)
    for inset, shade in ((0, 0), (1, 255), (3, None)):
        inner = np.s_[top + inset : bottom - inset, left + inset : right - inset]
        marked[inner] = image[inner] if shade is None else shade
    return marked


def view(image: InputImage, side: int = SIDE) -> Pixels:
    """The upright image for display, uint8 `(H, W, 3)`: large images are reduced to `side`, small ones enlarged."""
    return _view(image.digest, image) if side == SIDE else _reduced(image, side)


@st.cache_resource(show_spinner=False, max_entries=_MAX_VIEWS)
def _view(digest: str, _image: InputImage) -> Pixels:
    return _reduced(_image, SIDE)


@st.cache_resource(show_spinner=False, max_entries=_MAX_INPUTS)
def _input(size: int, rule: ResizeRule, digest: str, _image: InputImage) -> Loaded:
    """An image as a model sees it, which is decoded once for the answer and for showing it."""
    return load_image(_image.path, size, rule, _image.name)


def _reduced(image: InputImage, side: int) -> Pixels:
    pixels = load_preview(image.path, side, image.name)
    longer = max(pixels.shape[:2])
    return pixels if longer >= SIDE else for_display(pixels, least=min(SIDE, 8 * longer), most=SIDE)


def heat_method(classifier: Classifier) -> str:
    """Describe the heatmap method used for this model."""
    if maps_side(classifier) > 1:
        return "Warm colors: what speaks most for the first answer."
    return "Warm colors: where hiding a part lowers the confidence in the first answer most. This takes a moment."


def uri(pixels: Pixels) -> str:
    """Encode pixels as a data URI: PNG for small images, JPEG for larger ones."""
    return data_uri(pixels, side=None, quality=None if is_pixelated(pixels) else _JPEG_QUALITY)


def heatmap_of(entry: Entry, classifier: Classifier, pixels: Pixels) -> Heat:
    """Heatmap of the top class for the model's input, float32 `(S, S)`; the last ones are remembered."""
    return _heatmap(entry.stamp, blake2b(pixels.tobytes(), digest_size=12).hexdigest(), classifier, pixels)


@st.cache_data(show_spinner=False, max_entries=_MAX_HEATMAPS)
def _heatmap(stamp: tuple[str, int, int], digest: str, _classifier: Classifier, _pixels: Pixels) -> Heat:
    """Heatmap of the top class, float32 `(S, S)`, computed without PyTorch."""
    batch = _pixels[None]
    if maps_side(_classifier) > 1:
        raw = _classifier.run(batch, ("heatmaps",))["heatmaps"]
    else:
        top = _classifier.run(batch, ("logits",))["logits"].argmax(axis=1)
        raw = occlusion_maps(
            lambda occluded: _classifier.run_batches(occluded, ("logits",))["logits"], batch, top.astype(np.int64)
        )
    heatmap: Heat = as_heat(np.nan_to_num(raw), len(_pixels))[0]
    return heatmap


TOP = 10
"""Maximum number of classes kept per image."""
_PROGRESS_FROM = 12  # smallest number of images with a progress bar
_STEP = 8
_BATCH = 2
"""Number of images in one run of a model; ONNX Runtime keeps the memory that a run takes."""
_MAX_CACHED, _MODELS = 4000, 5
"""Number of results that a session keeps, and number of results of each image of a longer list: one of each model that
is compared, and further views."""
_FEW = 8
"""Number of new images up to which they are decoded for the answer and for showing it at once."""
_THREADS = 4

Result = Prediction | UnreadableImage


def classify(entry: Entry, images: Sequence[InputImage], *, twice: bool = False) -> list[Result]:
    """Classify images with up to `TOP` classes each; shows a progress bar for many images.

    With `twice`, those of which the model is in doubt are classified again with further views, and all results have the
    number of views: see `look_twice`.
    """
    once = _classify(entry, images)
    if not twice:
        return once
    classifier = load_classifier(entry)
    doubtful = [image for image, one in zip(images, once, strict=True) if look_twice.in_doubt(classifier, one)]
    again = {image.digest: one for image, one in zip(doubtful, _classify(entry, doubtful, "all"), strict=True)}
    most = look_twice.most_views(classifier)
    return [
        look_twice.with_views(again.get(image.digest, one), most if image.digest in again else 1)
        for image, one in zip(images, once, strict=True)
    ]


def _classify(entry: Entry, images: Sequence[InputImage], tta: Tta = "off") -> list[Result]:
    """Classify images that this session has not yet classified in this way; `tta` as in `Classifier.predict`."""
    cache: dict[tuple[object, ...], Result] = st.session_state.setdefault(RESULTS, {})
    new = [image for image in images if (entry.stamp, image.digest, tta) not in cache]
    if new:
        classifier = load_classifier(entry)
        doing, done = ("Classifying", "Classified") if tta == "off" else ("Looking again at", "Looked again at")
        bar = st.progress(0.0, f"{doing} {len(new)} images …") if len(new) >= _PROGRESS_FROM else None
        top = min(TOP, len(classifier.classes))
        if len(new) <= _FEW:
            new_results = _classify_few(classifier, new, top, tta)
        else:
            new_results = classifier.predict_iter((image.path for image in new), top, batch=_BATCH, tta=tta)
        for number, (image, result) in enumerate(zip(new, new_results, strict=True), start=1):
            cache[entry.stamp, image.digest, tta] = result
            if bar is not None and number % _STEP == 0:
                bar.progress(number / len(new), f"{done} {number} of {len(new)} images")
        if bar is not None:
            bar.empty()
    results = [_with_name(cache[entry.stamp, image.digest, tta], image.name) for image in images]
    for key in list(cache)[: max(0, len(cache) - max(_MAX_CACHED, _MODELS * len(images)))]:
        del cache[key]
    return results


def _classify_few(classifier: Classifier, images: Sequence[InputImage], top: int, tta: Tta) -> Iterator[Result]:
    """Classify a few images whose decoded pixels are kept, because the page shows them next."""
    with ThreadPoolExecutor(cpu_count(_THREADS)) as pool:
        found = list(pool.map(partial(_decoded, classifier), images))
    readable = [one for one in found if isinstance(one, Loaded)]
    answers: list[Prediction] = []
    for start in range(0, len(readable), _BATCH):
        some = np.stack([one.pixels for one in readable[start : start + _BATCH]])
        answers += classifier.classify(some, top, tta=tta)
    sized = (replace(one, width=at.width, height=at.height) for one, at in zip(answers, readable, strict=True))
    for one in found:
        yield one if isinstance(one, UnreadableImage) else next(sized)


def _decoded(classifier: Classifier, image: InputImage) -> Loaded | UnreadableImage:
    info = classifier.info
    try:
        return _input(info.input_size, info.resize, image.digest, image)
    except ImageError as error:
        return UnreadableImage(image.name, plain(str(error)))


def as_csv(results: Sequence[Result], top: int) -> str:
    """Results as written by `thirtytwo predict --format csv`, and what the page says of each answer.

    The column `certainty` is `sure`, `not sure` or `unknown`; a last column `views` is there where results have them.
    """
    stream = io.StringIO(newline="")
    write_csv([truncate(result, top) for result in results], stream, top)
    head, *rows = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    further = [_further(result) for result in results]
    names = [name for name in ("certainty", "views") if name == "certainty" or any(name in one for one in further)]
    stream = io.StringIO(newline="")
    writer = CsvWriter(stream)
    writer.writerow([*head, *names])
    for row, more in zip(rows, further, strict=True):
        writer.writerow([*map(csv_text, row), *(more.get(name, "") for name in names)])
    return stream.getvalue()


def as_json(results: Sequence[Result], top: int) -> str:
    """Results as written by `thirtytwo predict --format json`, with `certainty` as in `as_csv`."""
    stream = io.StringIO()
    write_json([truncate(result, top) for result in results], stream, top)
    entries = json.loads(stream.getvalue())
    further = map(_further, results)
    lines = [json.dumps(one | more, ensure_ascii=False) for one, more in zip(entries, further, strict=True)]
    return "\n".join(["[", ",\n".join(lines), "]", ""])


def _further(result: Result) -> dict[str, str | int]:
    """What the files that the app offers say of an answer beside what `thirtytwo predict` does."""
    if isinstance(result, UnreadableImage):
        return {}
    found: dict[str, str | int] = {"certainty": certainty(result)}
    if views := look_twice.views_of(result):
        found["views"] = views
    return found


def as_zip(entry: Entry, images: Sequence[InputImage], results: Sequence[Result]) -> bytes:
    """The content of the file that `write_zip` writes."""
    stream = io.BytesIO()
    for _ in write_zip(stream, entry, images, results):
        pass
    return stream.getvalue()


def write_zip(
    stream: IO[bytes], entry: Entry, images: Sequence[InputImage], results: Sequence[Result]
) -> Iterator[int]:
    """Write a ZIP file with a heatmap overlay of every readable image, and `predictions.json`.

    Overlays are JPEG, those of small images PNG. Yields the number of overlays written so far after each one. Images
    whose file is gone since they were classified have none.
    """
    with zipfile.ZipFile(stream, "w") as archive:
        taken: set[str] = set()
        for image, result in zip(images, results, strict=True):
            if isinstance(result, Prediction):
                small = max(result.width, result.height) <= PIXELATED_SIDE
                try:
                    overlaid = render(entry, image, heat=True, side=OVERLAY_SIDE).image
                except ImageError:
                    continue
                name = _unused_name(image.name, taken, ".png" if small else ".jpg")
                archive.writestr(name, png(overlaid) if small else jpeg(overlaid, _JPEG_QUALITY))
                yield len(taken)
        archive.writestr("predictions.json", as_json(results, TOP), zipfile.ZIP_DEFLATED)


def truncate(result: Result, top: int) -> Result:
    """A result with at most `top` classes."""
    return result if isinstance(result, UnreadableImage) else replace(result, predictions=result.predictions[:top])


def _with_name(result: Result, name: str) -> Result:
    """The result with the name that the file had where it was uploaded from."""
    if isinstance(result, UnreadableImage):
        error = plain(result.error)
        return UnreadableImage(name, error.replace(result.file, name) if result.file else error)
    return replace(result, file=name)


def _unused_name(name: str, taken: set[str], suffix: str) -> str:
    """An unused name with this suffix derived from the image's name."""
    stem = PurePosixPath(name.replace("\\", "/")).stem or "image"
    free = free_name(f"{stem}{suffix}", taken)
    taken.add(free.casefold())
    return free
