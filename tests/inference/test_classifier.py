from __future__ import annotations

import copy
import pickle
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from thirtytwo.errors import ArgumentError, ImageError, ModelFileError
from thirtytwo.inference import classifier as classifier_module
from thirtytwo.inference import session as session_module
from thirtytwo.inference.classifier import Classifier, Prediction, UnreadableImage, load
from thirtytwo.inference.library import bundled_models
from thirtytwo.machine import cpu_count


@pytest.fixture(scope="module")
def classifier(colour_model: Path) -> Classifier:
    return load(colour_model)


def pixels(red: int, green: int, blue: int, size: int = 8) -> npt.NDArray[np.uint8]:
    return np.full((size, size, 3), (red, green, blue), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "top", "known"),
    [
        (pixels(250, 0, 0), "red", True),
        (pixels(0, 250, 0, size=40), "green", True),
        (pixels(0, 0, 250, size=3), "blue", True),
        (pixels(128, 128, 129), "blue", False),
    ],
)
def test_pixels(classifier: Classifier, image: npt.NDArray[np.uint8], top: str, known: bool) -> None:
    (result,) = classifier.predict(image)
    assert isinstance(result, Prediction)
    assert (result.file, result.top, result.known) == (None, top, known)
    assert (result.height, result.width) == image.shape[:2]
    assert result.predictions[0] == (result.top, result.confidence)
    assert sum(value for _, value in result.predictions) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("form", ["str", "Path", "bytes", "list", "iterator"])
def test_forms_of_input(classifier: Classifier, image_folder: Path, form: str) -> None:
    file = image_folder / "red.png"
    given = {"str": str(file), "Path": file, "bytes": file.read_bytes(), "list": [file], "iterator": iter([file])}[form]
    (result,) = classifier.predict(given)  # type: ignore[arg-type]
    assert isinstance(result, Prediction)
    assert (result.top, result.width, result.height) == ("red", 8, 10)
    assert result.file == (None if form == "bytes" else str(file))


@pytest.mark.parametrize("many", [False, True])
def test_pillow_images(classifier: Classifier, image_folder: Path, many: bool) -> None:
    files = sorted(image_folder.glob("*.png"))[: 4 if many else 1]
    images = [Image.open(file) for file in files]
    results = classifier.predict(images if many else images[0])
    assert [result.file for result in results] == [None] * len(files)
    assert [{**result.as_dict(), "file": None} for result in classifier.predict(files)] == [
        result.as_dict() for result in results
    ]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "I;16", "CMYK"])
def test_pillow_modes_and_orientation_as_for_files(classifier: Classifier, tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (20, 10), "red").convert("L" if mode == "I;16" else mode).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    image.getexif()[0x0112] = 6
    file = tmp_path / "photo.tif"
    image.save(file, exif=exif)
    from_file, from_pillow = classifier.predict(file)[0], classifier.predict(image)[0]
    assert isinstance(from_pillow, Prediction)
    assert isinstance(from_file, Prediction)
    assert (from_pillow.width, from_pillow.height) == (10, 20)
    assert from_pillow.predictions == from_file.predictions


def test_one_pillow_image_many_times(classifier: Classifier, image_folder: Path) -> None:
    image = Image.open(image_folder / "red.png")
    assert {result.as_dict()["top"] for result in classifier.predict([image] * 100)} == {"red"}


def test_unreadable_pillow_images(classifier: Classifier, tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:600])
    with Image.open(file) as cut:
        given = [Image.new("1", (20_000, 20_000)), Image.new("L", (1, 1)), cut]
        assert [type(result) for result in classifier.predict(given)] == [UnreadableImage] * 3


def test_stack_of_pixels(classifier: Classifier) -> None:
    stack = np.stack([pixels(250, 0, 0), pixels(0, 0, 250)])
    assert [result.top for result in classifier.predict(stack)] == ["red", "blue"]  # type: ignore[union-attr]


def test_ready_batch(classifier: Classifier) -> None:
    stack = np.stack([pixels(250, 0, 0), pixels(128, 128, 129), pixels(0, 0, 250)])
    assert classifier.classify(stack, top=2) == classifier.predict(stack, top=2)
    assert [result.known for result in classifier.classify(stack)] == [True, False, True]


def test_no_images(classifier: Classifier) -> None:
    assert classifier.predict([]) == []


@pytest.mark.parametrize(("top", "found"), [(1, 1), (2, 2), (3, 3), (99, 3)])
def test_top(classifier: Classifier, top: int, found: int) -> None:
    (result,) = classifier.predict(pixels(250, 100, 0), top=top)
    assert isinstance(result, Prediction)
    assert [name for name, _ in result.predictions] == ["red", "green", "blue"][:found]


@pytest.mark.parametrize(
    ("method", "wrong", "named"),
    [
        ("predict", {"top": 0}, "top.*0"),
        ("predict", {"tta": "on"}, "tta.*'auto'.*'on'"),
        ("predict_iter", {"top": -1}, "top.*-1"),
        ("predict_iter", {"batch": 0}, "batch.*0"),
        ("predict_iter", {"batch": -8}, "batch.*-8"),
        ("predict_iter", {"tta": None}, "tta.*None"),
        ("classify", {"top": 0}, "top.*0"),
        ("classify", {"top": -1}, "top.*-1"),
        ("classify", {"tta": "Auto"}, "tta.*'Auto'"),
        ("run_batches", {"size": 0}, "size.*0"),
        ("run_batches", {"size": -1}, "size.*-1"),
    ],
)
def test_arguments_are_checked_before_anything_runs(
    classifier: Classifier, method: str, wrong: dict[str, object], named: str
) -> None:
    with pytest.raises(ArgumentError, match=named):
        getattr(classifier, method)(np.zeros((2, 8, 8, 3), dtype=np.uint8), **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 9, 9, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
    ],
)
@pytest.mark.parametrize("method", ["classify", "run", "run_batches"])
def test_pixels_of_another_shape_or_type_are_named(
    classifier: Classifier, method: str, wrong: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(ArgumentError, match=r"uint8 \(N, 8, 8, 3\).*found (uint8|float32) \("):
        getattr(classifier, method)(wrong)


class Recorder:
    """An ONNX Runtime session that notes the number of images in each run."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.sizes: list[int] = []

    def run(self, outputs: list[str], inputs: dict[str, npt.NDArray[np.uint8]]) -> Any:
        self.sizes.append(len(inputs["images"]))
        return self.session.run(outputs, inputs)


@pytest.mark.parametrize(("batch", "batches", "most"), [(4, 1, 4), (4, 2, 2), (1, 1, 1), (None, 2, 16)])
def test_no_run_has_more_images_than_a_batch_with_further_views_too(
    image_folder: Path, colour_model: Path, batch: int | None, batches: int, most: int
) -> None:
    several = load(colour_model, threads=2, batches=batches)
    recorder = Recorder(several.session)
    several.session = recorder  # type: ignore[assignment]
    images = [image_folder / "red.png"] * 40
    results = list(several.predict_iter(images, batch=batch, tta="all"))
    assert max(recorder.sizes) == most
    assert sum(recorder.sizes) > 2 * len(images)
    assert results == list(load(colour_model).predict_iter(images, tta="all"))


def test_no_images_have_no_predictions(classifier: Classifier) -> None:
    none = np.zeros((0, 8, 8, 3), dtype=np.uint8)
    assert classifier.classify(none) == classifier.predict(none) == classifier.predict([]) == []


@pytest.mark.parametrize("wrong", [{"top": 0}, {"top": "3"}, {"top": 2.5}, {"tta": "yes"}, {"tta": True}])
def test_options_are_checked(classifier: Classifier, wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=re.escape(name) + ".*" + re.escape(repr(value))):
        classifier.predict(pixels(0, 0, 0), **wrong)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_kinds_of_bytes(classifier: Classifier, image_folder: Path, kind: type) -> None:
    (result,) = classifier.predict(kind((image_folder / "red.png").read_bytes()))
    assert isinstance(result, Prediction)
    assert result.top == "red"


@pytest.mark.parametrize(
    ("given", "found"), [(None, "NoneType"), (3, "int"), ([None], "NoneType"), (["a.png", 3.5], "float")]
)
def test_what_is_no_image_is_named(classifier: Classifier, given: Any, found: str) -> None:
    with pytest.raises(TypeError, match=rf"path.*bytes.*{found}"):
        classifier.predict(given)


def test_an_open_file_is_not_read_line_by_line(classifier: Classifier, image_folder: Path) -> None:
    with (image_folder / "red.png").open("rb") as file, pytest.raises(TypeError, match=r"open file.*read\(\)"):
        classifier.predict(file)


def test_attributes_that_only_predictions_have_say_why_there_is_none(classifier: Classifier, tmp_path: Path) -> None:
    (result,) = classifier.predict(tmp_path / "missing.jpg")
    with pytest.raises(AttributeError, match=r"'top'.*missing\.jpg does not exist"):
        result.top  # type: ignore[union-attr]  # noqa: B018
    assert not hasattr(result, "other")
    assert copy.deepcopy(result) == pickle.loads(pickle.dumps(result)) == result  # noqa: S301


@pytest.mark.parametrize("name", ["x" * 5000 + ".jpg", "a\0b.jpg"])
def test_impossible_names_are_unreadable_images(classifier: Classifier, image_folder: Path, name: str) -> None:
    wrong, right = classifier.predict([name, str(image_folder / "red.png")])
    assert isinstance(wrong, UnreadableImage)
    assert len(wrong.error) < 200
    assert isinstance(right, Prediction)


@pytest.mark.parametrize("count", [2, 31, 32, 33, 200, 257, 700])
def test_order_is_kept_and_unreadable_ones_stay_in_place(
    classifier: Classifier, image_folder: Path, count: int
) -> None:
    bad = image_folder / "bad.png"
    bad.write_bytes((image_folder / "red.png").read_bytes()[:40])
    kinds = [image_folder / "red.png", image_folder / "green.png", bad, image_folder / "blue.png"]
    files = [kinds[number % 4] for number in range(count)]
    results = classifier.predict(files)
    assert [result.file for result in results] == [str(file) for file in files]
    for file, result in zip(files, results, strict=True):
        assert isinstance(result, UnreadableImage) == (file == bad)
        assert isinstance(result, UnreadableImage) or result.top == file.stem


def test_same_alone_and_in_a_batch(classifier: Classifier, image_folder: Path) -> None:
    files = sorted(image_folder.glob("*.png")) * 20
    alone = [classifier.predict(file)[0] for file in files[:4]]
    assert classifier.predict(files) == alone * 20


@pytest.mark.parametrize(("threads", "batches", "running"), [(1, 2, 1), (2, 2, 2), (5, 2, 2), (4, 1, 1)])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 700])
def test_several_batches_at_a_time_give_the_same(
    colour_model: Path, classifier: Classifier, threads: int, batches: int, running: int, count: int
) -> None:
    several = load(colour_model, threads=threads, batches=batches)
    assert several._batches == running
    assert several.session.get_session_options().intra_op_num_threads == threads // running
    colours: list[npt.NDArray[Any]] = [
        pixels(250, 0, 0),
        pixels(0, 250, 0),
        pixels(0, 0, 250),
        pixels(1, 2, 3).astype(np.float32),
    ]
    images = [colours[number % 4] for number in range(count)]
    assert several.predict(images) == classifier.predict(images)


@pytest.mark.parametrize(
    "array",
    [
        np.full((8, 9), 250, np.uint8),
        np.full((3, 8, 9), 250, np.uint8),
        np.full((8, 9, 4), 250, np.uint8),
        np.full((8, 9, 3), 250 / 255, np.float32),
    ],
    ids=["gray", "channels first", "alpha", "from 0 to 1"],
)
def test_the_advice_for_other_arrays_makes_pixels_of_them(classifier: Classifier, array: npt.NDArray[Any]) -> None:
    (found,) = classifier.predict([array])
    assert isinstance(found, UnreadableImage)
    advice = found.error.rpartition(": ")[2]
    converted = eval(advice, {"np": np, "pixels": array})  # noqa: S307 (of this package)
    assert classifier.predict([converted]) == classifier.predict([np.full((8, 9, 3), 250, np.uint8)])


@pytest.mark.parametrize("wrong", [{"batches": 0}, {"batches": -1}, {"threads": -2}])
def test_numbers_of_threads_and_batches_are_checked(colour_model: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=f"at least.*{next(iter(wrong.values()))}"):
        load(colour_model, **wrong)


def test_an_error_of_one_of_several_batches_is_raised(colour_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(colour_model, threads=2, batches=2)
    monkeypatch.setattr(
        classifier, "run", lambda images, outputs: dict.fromkeys(outputs, np.full((len(images), 3), np.nan))
    )
    with pytest.raises(ModelFileError, match="not a number"):
        classifier.predict([pixels(250, 0, 0)] * 700)


def test_only_a_few_batches_are_held(classifier: Classifier) -> None:
    taken = 0

    def many() -> Iterator[npt.NDArray[np.uint8]]:
        nonlocal taken
        for _ in range(10_000):
            taken += 1
            yield pixels(250, 0, 0)

    results = classifier.predict_iter(many())
    for _ in range(40):
        next(results)
    assert taken < 400
    results.close()  # type: ignore[attr-defined]


def test_memory_does_not_grow_with_the_number_of_images(classifier: Classifier) -> None:
    tracemalloc.start()
    try:
        for _ in classifier.predict_iter(pixels(250, 0, 0, size=64) for _ in range(2000)):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000, "2,000 images of 64×64 pixels hold 24 MB"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.png", b""),
        ("text.jpg", b"no image here, only words"),
        ("cut.png", None),
    ],
)
def test_unreadable_files(classifier: Classifier, image_folder: Path, name: str, data: bytes | None) -> None:
    file = image_folder / name
    file.write_bytes((image_folder / "grey.png").read_bytes()[:60] if data is None else data)
    (result,) = classifier.predict(file)
    assert isinstance(result, UnreadableImage)
    assert result.as_dict() == {"file": str(file), "error": result.error}
    assert str(file) in result.error


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)],
)
def test_wrong_pixels(classifier: Classifier, wrong: npt.NDArray[np.uint8]) -> None:
    (result,) = classifier.predict(wrong)
    assert isinstance(result, UnreadableImage)
    assert f"{wrong.dtype} {wrong.shape}" in result.error


def test_as_dict_is_the_contract(classifier: Classifier, image_folder: Path) -> None:
    result = classifier.predict(image_folder / "green.png", top=2)[0].as_dict()
    assert list(result) == ["file", "width", "height", "top", "confidence", "known", "predictions"]
    assert [list(entry) for entry in result["predictions"]] == [["class", "confidence"]] * 2
    assert (result["width"], result["height"], result["top"], result["known"]) == (16, 20, "green", True)


def test_outputs(classifier: Classifier) -> None:
    batch = np.stack([pixels(250, 0, 0)] * 2)
    outputs = classifier.run(batch, ["features", "heatmaps"])
    assert {name: value.shape for name, value in outputs.items()} == {"features": (2, 3), "heatmaps": (2, 8, 8)}


def test_batches_of_outputs(classifier: Classifier) -> None:
    stack = np.stack([pixels(value, 0, 250 - value) for value in range(0, 250, 25)])
    whole, parts = classifier.run(stack), classifier.run_batches(stack[:, :, ::-1], size=3)
    assert parts.keys() == whole.keys()
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-6)


def test_no_threshold_knows_everything(write_model: Callable[..., Path], tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", unknown_threshold=None)
    (result,) = load(path).predict(pixels(128, 128, 128))
    assert isinstance(result, Prediction)
    assert result.known


def test_unexpected_errors_while_decoding_are_raised(
    classifier: Classifier, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(classifier_module, "load_image", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        classifier.predict(sorted(image_folder.glob("*.png")))


@pytest.mark.slow
def test_huge_image_is_refused_before_decoding(classifier: Classifier, tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    Image.new("1", (20_000, 20_000)).save(file)
    (result,) = classifier.predict(file)
    assert isinstance(result, UnreadableImage)
    assert "20000×20000" in result.error
    assert ImageError.__name__ not in result.error


@pytest.mark.parametrize(("size", "largest"), [(32, 392), (160, 15), (224, 8), (288, 4), (2000, 1)])
def test_a_batch_has_a_bounded_number_of_pixels(
    size: int, largest: int, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    classifier = Classifier(write_model(tmp_path / "model.onnx", input_size=size))
    assert classifier.largest_batch == largest


@pytest.mark.parametrize("threads", [None, 1])
def test_a_model_opened_ahead_is_used_once_and_with_its_threads_only(threads: int | None) -> None:
    path = bundled_models()["cifar10-tiny"]
    session_module.open_ahead(path)
    (ahead,) = session_module._ahead.values()
    first, second = Classifier(path, threads=threads), Classifier(path, threads=threads)
    assert (first.session is ahead.result()) == (threads is None or cpu_count() == 1)
    assert second.session is not ahead.result()


def test_no_model_opened_ahead_is_kept_unused() -> None:
    session_module.open_ahead(bundled_models()["cifar10-tiny"])
    Classifier(bundled_models()["cifar10-tiny"], threads=cpu_count() + 1)
    assert not session_module._ahead


def test_a_damaged_model_opened_ahead_is_reported_where_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    session_module.open_ahead(tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="is not an ONNX model"):
        Classifier(tmp_path / "model.onnx")
