"""The page Explore, "A data set": its images, size and splits in plain words, and files that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library
from thirtytwo.app.originals import _OPENABLE
from thirtytwo.app.settings import AppSettings

Shade = Callable[..., list[Path]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory of the app."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "settings", AppSettings())
    return tmp_path


def photographs(folder: Path, sizes: Iterable[tuple[int, int]], seed: int) -> None:
    """Photographs of noise, of these widths and heights."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")


def explored(spec: str) -> AppTest:
    """The page after a data set was asked for."""

    def script() -> None:
        from thirtytwo.app.components import show_error
        from thirtytwo.app.views import explore
        from thirtytwo.errors import ThirtytwoError

        try:
            explore.show()
        except ThirtytwoError as error:
            show_error(error)

    found = AppTest.from_function(script, default_timeout=60).run()
    found.segmented_control(key="explore").set_value("A data set").run()
    found.text_input(key="data-spec").set_value(spec)
    next(one for one in found.button if one.label == "Show").click().run()
    assert not found.exception
    return found


def texts(found: AppTest) -> str:
    kinds = ("markdown", "info", "error", "warning", "caption")
    return "\n".join(one.value for kind in kinds for one in getattr(found, kind))


@pytest.mark.slow
def test_images_that_cannot_be_read_hide_no_others(place: Path, shade: Shade) -> None:
    for seed, name in enumerate(("glass", "metal")):
        shade(place / "trash" / name, (90, 90 * seed, 30), 12, seed=seed)
    (place / "trash" / "glass" / "notes.jpg").write_text("bread, milk")
    (place / "trash" / "metal" / "broken.png").write_bytes((place / "trash" / "metal" / "0.png").read_bytes()[:60])
    found = explored("trash")
    assert not found.error
    (note,) = [one.value for one in found.warning]
    assert "glass/notes.jpg" in note
    assert "metal/broken.png" in note
    assert "page Data" in note
    assert "2 classes" in texts(found)
    assert sum(found.dataframe[0].value[["train", "test"]].to_numpy().ravel()) == 24
    assert "cannot be read" not in "\n".join(one.value for one in found.caption), "it is said once"


@pytest.mark.slow
def test_a_folder_with_the_name_of_a_known_data_set_is_named_by_its_path(place: Path, shade: Shade) -> None:
    for folder in ("photos/cifar10", "photos/pets"):
        for seed, name in enumerate(("cat", "dog")):
            shade(place / folder / name, (90, 90 * seed, 30), 8, seed=seed)
    assert "**photos/cifar10**: 2 classes" in texts(explored("photos/cifar10"))
    assert "**pets**: 2 classes" in texts(explored("photos/pets"))
    assert "**digits**: 10 classes" in texts(explored("digits"))


@pytest.mark.slow
def test_photographs_have_their_own_size_and_no_model_sees_them(place: Path) -> None:
    photographs(place / "pets" / "cat", [(300, 200)] * 8, seed=1)
    photographs(place / "pets" / "dog", [(260, 400)] * 8, seed=2)
    found = explored("pets")
    assert "260 to 300 pixels wide and 200 to 400 high" in texts(found)
    assert "32×32" not in texts(found)
    opened = list(found.session_state[_OPENABLE].values())
    assert opened
    assert {one.rule for one in opened} == {None}


@pytest.mark.slow
def test_splits_and_how_they_were_made_are_in_the_words_of_the_other_pages(place: Path, shade: Shade) -> None:
    for part, count in (("train", 6), ("val", 3)):
        for seed, name in enumerate(("cat", "dog")):
            shade(place / "pets" / part / name, (90, 90 * seed, 30), count, seed=10 * count + seed)
    found = explored("pets")
    split = found.selectbox(key="data-part")
    assert "validation" in split.options
    assert "6 validation" in texts(found)
    assert "validation" in found.dataframe[0].value
    split.set_value("val").run()
    assert not found.exception
    assert "There is no folder test: " in texts(found)
    assert "were set aside at random" in texts(found)
    assert "split off" not in texts(found)


@pytest.mark.slow
def test_the_validation_split_of_a_run_has_its_whole_name(place: Path, finished_run: Callable[..., Path]) -> None:
    from thirtytwo.rundir import RunDir

    run = RunDir(finished_run(place / "runs" / "pets"))
    run.predictions("val").write_bytes(run.predictions("test").read_bytes())

    def script() -> None:
        from thirtytwo.app.views import explore

        explore.show()

    found = AppTest.from_function(script, default_timeout=60).run()
    control = found.segmented_control(key=f"split-{Path('runs') / 'pets'}")
    assert control.options == ["test", "validation"]
    control.set_value("val").run()
    assert not found.exception
    assert "(validation)" in found.metric[0].label


def test_a_button_says_what_its_range_is() -> None:
    def script() -> None:
        import numpy as np

        from thirtytwo.app.views.drill_down import Filters, show_next_steps
        from thirtytwo.predictions import Predictions

        truth = np.repeat([0, 1], [12, 40])
        chosen = np.where(np.arange(52) < 10, 1, truth)
        found = Predictions(("glass", "metal"), truth, np.eye(2, dtype=np.float32)[chosen], np.arange(52))
        show_next_steps(found, Filters("run"))

    found = AppTest.from_function(script, default_timeout=60).run()
    label = found.button(key="weak-0").label
    assert label.startswith("glass: 2 of 12 recognized, 95\u00a0% interval 4.7–44.8")
    said = "\n".join(one.value for one in found.markdown)
    assert "How often glass is recognized was measured on only 12 images" in said
    assert "recall" not in said + found.button(key="weak-0").help.lower()
