"""The page Add classes without a browser: folders, ZIP files, and what is wrong with them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library
from thirtytwo.app.settings import AppSettings
from thirtytwo.app.views.teach_input import FOLDER

Shade = Callable[..., list[Path]]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None, colour_model: Path) -> AppTest:
    """The page with one model to start from, where folders are added."""

    def script() -> None:
        from thirtytwo.app.views import fewshot

        fewshot.show()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setattr(library, "settings", AppSettings(models=(str(colour_model),)))
    found = AppTest.from_function(script, default_timeout=60).run()
    assert not found.exception
    return found.button_group(key="teach-way").set_value(FOLDER).run()


def names(page: AppTest) -> list[str]:
    return [one.value or "" for one in page.text_input]


def test_a_folder_becomes_classes(page: AppTest, shade: Shade, tmp_path: Path) -> None:
    files = [
        (f"pets/{name}/{file.name}", file.read_bytes(), "image/png")
        for number, name in enumerate(("cat", "dog", "cow"))
        for file in shade(tmp_path / name, (10 + 80 * number,) * 3, 2, seed=number)
    ]
    page.file_uploader(key="class-folder-0").set_value(files).run()
    assert not page.exception
    assert names(page) == ["cat", "cow", "dog"]
    assert page.info[0].value == "6 images of 3 classes added."
    assert [one.value for one in page.caption].count("2 images") == 3


def test_a_zip_file_adds_to_the_classes_that_are_there(page: AppTest, shade: Shade, tmp_path: Path) -> None:
    page.text_input(key="name-1").set_value("Cat").run()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("cat", "dog"):
            for file in shade(tmp_path / name, (90, 10, 10), 2, seed=len(name)):
                archive.write(file, f"{name}/{file.name}")
            archive.writestr(f"{name}/broken.jpg", b"\xff\xd8 no")
    page.file_uploader(key="class-zip-0").set_value(("pets.zip", stream.getvalue(), "application/zip")).run()
    assert not page.exception
    assert names(page) == ["Cat", "dog"]
    assert sum("broken.jpg" in one.value for one in page.warning) == 2


@pytest.mark.parametrize("data", [b"no ZIP file", b""])
def test_a_damaged_zip_file_is_refused(page: AppTest, data: bytes) -> None:
    page.file_uploader(key="class-zip-0").set_value(("pets.zip", data, "application/zip")).run()
    assert not page.exception
    assert "pets.zip" in page.error[0].value
    assert names(page) == ["", ""]


def test_files_without_folders_are_refused(page: AppTest, shade: Shade, tmp_path: Path) -> None:
    files = [(file.name, file.read_bytes(), "image/png") for file in shade(tmp_path / "a", (90, 10, 10), 2, seed=1)]
    page.file_uploader(key="class-folder-0").set_value(files).run()
    assert not page.exception
    assert "subfolder" in page.error[0].value
