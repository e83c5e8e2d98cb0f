"""HEIC photographs are uploaded, shown, classified and taught like others."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library, photos
from thirtytwo.app.project_store import ProjectStore
from thirtytwo.app.settings import AppSettings
from thirtytwo.fewshot import fit_linear_probe
from thirtytwo.inference.classifier import Prediction, load

pytestmark = pytest.mark.slow


pillow_heif = pytest.importorskip("pillow_heif")


def heic(color: tuple[int, int, int], size: tuple[int, int] = (320, 240)) -> bytes:
    """A HEIC photograph of one color."""
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", size, color)).save(stream)
    return stream.getvalue()


def test_heic_goes_through_the_app(
    colour_model: Path, nothing_bundled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings(models=(str(colour_model),)))

    def script() -> None:
        import streamlit as st

        from thirtytwo.app import originals, photos
        from thirtytwo.app.views import classify

        classify.show()
        if photos.current_images():
            key = next(iter(st.session_state["images to open"]))
            st.session_state["answer"] = originals._described(originals._Opened(key))

    page = AppTest.from_function(script, default_timeout=60).run()
    page.file_uploader(key="upload-0").set_value([("IMG_1.HEIC", heic((5, 5, 250)), "image/heic")]).run()
    assert not page.exception
    assert not page.warning
    answer = page.session_state["answer"]
    assert (answer["width"], answer["height"], answer["source"].endswith(".jpg")) == (320, 240, True)
    image = page.session_state[photos.CLASSIFIED][0]
    assert Image.open(io.BytesIO(image.thumbnail)).size == (176, 132)
    found = load(colour_model).predict([image.path])[0]
    assert isinstance(found, Prediction)
    assert (found.top, found.width, found.height) == ("blue", 320, 240)


def test_a_class_is_taught_with_heic(colour_model: Path, tmp_path: Path) -> None:
    store = ProjectStore.open(tmp_path / "projects")
    project = store.create()
    colors = {1: (240, 10, 10), 2: (10, 240, 10)}
    for number, (red, green, blue) in colors.items():
        files = [(f"IMG_{index}.heic", heic((red, green, blue + 8 * index), (64, 48))) for index in range(6)]
        project = store.add_photos(project.identity, number, files)
    from thirtytwo.images.decode import load_image

    classifier = load(colour_model)
    pixels = {
        name: [load_image(store.image(project.identity, one).path, 8).pixels for one in project.find(number).readable]
        for number, name in ((1, "rose"), (2, "leaf"))
    }
    assert {name: len(found) for name, found in pixels.items()} == {"rose": 6, "leaf": 6}
    probe = fit_linear_probe(classifier, pixels, resize="crop")
    probe.write(tmp_path / "model.onnx")
    (tmp_path / "new.heic").write_bytes(heic((230, 20, 20)))
    answer = load(tmp_path / "model.onnx").predict([tmp_path / "new.heic"])[0]
    assert isinstance(answer, Prediction)
    assert answer.top == "rose"


def test_photographs_that_need_much_memory_are_decoded_one_at_a_time() -> None:
    large = heic((9, 9, 9), (2000, 1200))
    assert photos._one_at_a_time("a.heic", large) is photos._one_at_a_time("b.heic", large)
    assert photos._one_at_a_time("c.heic", heic((9, 9, 9))) is not photos._one_at_a_time("d.heic", large)
