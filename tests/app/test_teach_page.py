"""The page Add classes without a browser: folders, ZIP files, and what is wrong with them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import images, library, manage
from thirtytwo.app.intake import Portion
from thirtytwo.app.names import MAX_NAME
from thirtytwo.app.settings import AppSettings
from thirtytwo.app.views import fewshot, teach_input
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
    return [one.value or "" for one in page.text_input if one.label.startswith("Name of class")]


def texts(page: AppTest) -> str:
    kinds = ("markdown", "info", "error", "warning", "success", "caption")
    found = "\n".join(one.value for kind in kinds for one in getattr(page, kind))
    return found.replace("\\", "").replace("\u2060", "").replace("\u00a0", " ")


def add(page: AppTest, field: str, files: list[tuple[str, bytes]]) -> None:
    """Drop files on a field, whose key ends in the number of earlier uploads."""
    turn = page.session_state[f"{field}-turn"]
    page.file_uploader(key=f"{field}-{turn}").set_value([(*file, "image/png") for file in files]).run()
    assert not page.exception


def click(page: AppTest, key: str) -> None:
    page.button(key=key).click().run()
    assert not page.exception


def train(page: AppTest) -> None:
    next(one for one in page.button if one.label == "Train").click().run()
    assert not page.exception


def contents(
    shade: Shade, folder: Path, colour: tuple[int, int, int], count: int, seed: int
) -> list[tuple[str, bytes]]:
    return [(f"{folder.name}-{file.name}", file.read_bytes()) for file in shade(folder, colour, count, seed=seed)]


SUN, GRAPE = (240, 200, 30), (130, 30, 180)
BROKEN = b"\xff\xd8\xff\xe0 no photograph"


@pytest.fixture
def filled(page: AppTest, shade: Shade, tmp_path: Path) -> AppTest:
    """The page with six images each of the classes sun and grape."""
    for number, (name, colour) in enumerate({"sun": SUN, "grape": GRAPE}.items(), start=1):
        page.text_input(key=f"name-{number}").set_value(name).run()
        add(page, f"group-files-{number}", contents(shade, tmp_path / name, colour, 6, seed=number))
    return page


def score_of(page: AppTest) -> str:
    return next(one.value for one in page.markdown if "marked answer" in one.value)


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


def test_only_images_that_can_be_read_are_counted(page: AppTest, shade: Shade, tmp_path: Path) -> None:
    files = shade(tmp_path / "cat", SUN, 3, seed=1)
    add(page, "group-files-1", [("known.png", files[0].read_bytes())])
    page.text_input(key="name-1").set_value("cat").run()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for file in [*files, *shade(tmp_path / "dog", GRAPE, 2, seed=2)]:
            archive.write(file, f"{file.parent.name}/{file.name}")
        archive.writestr("dog/notes.jpg", b"a text")
        archive.writestr("dog/broken.jpg", BROKEN)
    page.file_uploader(key="class-zip-0").set_value(("pets.zip", stream.getvalue(), "application/zip")).run()
    assert not page.exception
    assert page.info[0].value == "4 images of 2 classes added."
    assert page.info[1].value.startswith("2 files cannot be read")
    assert "· 5 images, 2 files that cannot be read ·" in texts(page)
    click(page, "project-delete")
    assert "with its 5 images and 2 files that cannot be read?" in texts(page)
    click(page, "clear-2")
    assert "2 images and 2 files that cannot be read were removed" in texts(page)


def test_trials_that_cannot_be_read_are_not_counted_as_images(filled: AppTest, shade: Shade, tmp_path: Path) -> None:
    train(filled)
    new = contents(shade, tmp_path / "new", SUN, 2, seed=20)
    add(filled, "try-files", [*new, ("broken.jpg", BROKEN)])
    assert "2 images, 1 file that cannot be read" in texts(filled)
    assert "12 photos" in texts(filled), "of the estimate"
    assert "12 photos" not in filled.metric[0].label, "which would be cut off on a phone"
    click(filled, "clear-trials")
    assert "2 images and 1 file that cannot be read were removed" in texts(filled)


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


def test_an_image_that_is_there_already_is_named(filled: AppTest, tmp_path: Path) -> None:
    again = [("mine.png", (tmp_path / "sun" / "0.png").read_bytes())]
    add(filled, "group-files-1", again)
    assert "“mine.png” is already there, as “sun-0.png”" in texts(filled)
    assert [one.value for one in filled.caption].count("6 images") == 2
    train(filled)
    for count in (0, 1):
        add(filled, "try-files", again)
        assert ("“mine.png” is already there" in texts(filled)) is bool(count)


def test_an_image_in_two_classes_is_named_when_it_is_added(filled: AppTest, tmp_path: Path) -> None:
    add(filled, "group-files-2", [("mine.png", (tmp_path / "sun" / "0.png").read_bytes())])
    (found,) = [one.value for one in filled.error]
    for word in ("sun-0.png", "mine.png", "sun", "grape"):
        assert word in found.replace("\\", "")
    assert any("<img" in one.proto.body for one in filled.get("html"))
    assert next(one for one in filled.button if one.label == "Train").disabled


def test_an_image_that_was_saved_twice_and_is_in_two_classes_is_named(filled: AppTest, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.open(tmp_path / "sun" / "0.png").save(stream, "BMP")
    add(filled, "group-files-2", [("mine.bmp", stream.getvalue())])
    assert not filled.error
    train(filled)
    found = filled.error[0].value.replace("\\", "")
    assert "sun-0.png" in found
    assert "mine.bmp" in found


def test_photographs_that_are_almost_equal_in_two_classes_are_named(page: AppTest) -> None:
    scene = Image.effect_noise((40, 30), 90).resize((400, 300), Image.Resampling.BICUBIC).convert("RGB")

    def saved(image: Image.Image, kind: str, **options: int) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    def others(count: int) -> list[tuple[str, bytes]]:
        images = [Image.effect_noise((40, 30), 90).resize((400, 300), Image.Resampling.BICUBIC) for _ in range(count)]
        return [(f"{id(one)}.png", saved(one.convert("RGB"), "PNG")) for one in images]

    for number, name in enumerate(("Glas", "card"), start=1):
        page.text_input(key=f"name-{number}").set_value(name).run()
    add(page, "group-files-1", [("glass1.jpg", saved(scene, "JPEG", quality=60)), *others(3)])
    add(page, "group-files-2", [("glass1.webp", saved(scene, "WEBP", quality=60)), *others(3)])
    train(page)
    found = [one.value.replace("\\", "") for one in page.warning if "almost equal" in one.value]
    assert len(found) == 1
    for word in ("glass1.jpg", "Glas", "glass1.webp", "card"):
        assert word in found[0]


def test_an_unreadable_image_is_not_used_and_what_to_do_is_said(page: AppTest) -> None:
    add(page, "group-files-2", [("broken.jpg", BROKEN)])
    found = page.warning[0].value.replace("\\", "")
    assert "class 2" in found
    assert "broken.jpg" in found
    assert "leave it out" not in found


def test_a_class_of_one_image_is_not_reliable(page: AppTest, shade: Shade, tmp_path: Path) -> None:
    for number, (name, colour, count) in enumerate((("sun", SUN, 1), ("grape", GRAPE, 6)), start=1):
        page.text_input(key=f"name-{number}").set_value(name).run()
        add(page, f"group-files-{number}", contents(shade, tmp_path / name, colour, count, seed=number))
    train(page)
    assert any("Not reliable: “sun” has only one image" in one.value for one in page.warning)
    add(page, "group-files-1", contents(shade, tmp_path / "more", SUN, 2, seed=9))
    train(page)
    assert any("Not reliable: “sun” has 3 images" in one.value for one in page.warning)
    add(page, "group-files-1", contents(shade, tmp_path / "yet more", SUN, 3, seed=10))
    train(page)
    assert not [one for one in page.warning if "Not reliable" in one.value]


def test_marks_survive_training_again(filled: AppTest, shade: Shade, tmp_path: Path) -> None:
    filled.button(key="project-new")  # so that it is stored
    train(filled)
    new = contents(shade, tmp_path / "new", SUN, 4, seed=20)
    add(filled, "try-files", new)
    (project,) = library.projects().all()
    marks = [f"mark-{one.digest}" for one in project.trials]
    for key in marks[:2]:
        filled.button_group(key=key).set_value("Right").run()
    for key in marks[2:]:
        filled.button_group(key=key).set_value("Wrong").run()
    assert score_of(filled).startswith("**2 of 4 marked answers right**")
    first = filled.selectbox(key=f"true-{project.trials[2].digest}")
    assert set(first.options) == {"grape", "None of these, or not known"}
    first.set_value(2).run()
    assert not filled.exception

    # the two classes change their images, so that the next model gives the other answer to everything
    (project,) = library.projects().all()
    sun, grape = project.classes
    swapped = (
        sun.model_copy(update={"photos": grape.photos}),
        grape.model_copy(update={"photos": sun.photos}),
    )
    library.projects().change(project.identity, lambda one: one.model_copy(update={"classes": swapped}))
    train(filled.run())
    assert score_of(filled).startswith("**1 of 3 marked answers right; 1 to mark again**")
    left = project.trials[3].digest
    assert filled.button_group(key=f"mark-{left}").value is None
    filled.selectbox(key=f"true-{left}").set_value(1).run()
    assert score_of(filled).startswith("**1 of 4 marked answers right**")
    assert filled.button_group(key=f"mark-{left}").value == "Wrong"


def test_a_project_and_its_model_have_one_name(filled: AppTest) -> None:
    (project,) = library.projects().all()
    train(filled)
    assert [one.name for one in library.entries() if one.origin == library.TAUGHT] == ["sun or grape"]
    filled.text_input(key=f"project-name-{project.identity}").set_value("  Fruit  stand ").run()
    assert not filled.exception
    entry = next(one for one in library.entries() if one.origin == library.TAUGHT)
    assert entry.name == "Fruit stand"
    assert "Project: Fruit stand" in texts(filled)
    manage.rename(entry, "x" * 90)
    filled.run()
    assert filled.text_input(key=f"project-name-{project.identity}").value == "x" * MAX_NAME
    click(filled, "project-delete")
    assert f"Delete the project “{'x' * 30}…{'x' * 29}” with its 12 images and its model?" in texts(filled)
    filled.text_input(key=f"project-name-{project.identity}").set_value("").run()
    assert "Project: sun or grape" in texts(filled)
    filled.text_input(key=f"project-name-{project.identity}").set_value("model").run()
    taken = next(one.name for one in library.entries() if one.origin == library.FROM_OPTION)
    filled.text_input(key=f"project-name-{project.identity}").set_value(taken).run()
    assert taken in filled.error[0].value


@pytest.mark.parametrize("stored", [False, True])
def test_a_note_on_files_that_were_left_out_stays_with_its_project(page: AppTest, stored: bool) -> None:
    if stored:
        page.text_input(key="name-1").set_value("Pappe").run()
    add(page, "group-files-1", [("doc.pdf", b"%PDF-1.7")])
    assert "doc.pdf" in texts(page)
    page.text_input(key="name-2").set_value("glass").run()
    assert "doc.pdf" in texts(page)
    (project,) = library.projects().all()
    click(page, "project-new")
    assert "doc.pdf" not in texts(page)
    page.text_input(key="name-1").set_value("cardboard").run()
    assert "doc.pdf" not in texts(page)
    click(page, f"project-open-{project.identity}")
    assert "doc.pdf" in texts(page)
    click(page, f"group-files-1-{project.identity}-left-out-close")
    assert "doc.pdf" not in texts(page)


def test_a_zip_file_on_a_class_is_sent_to_its_field(filled: AppTest) -> None:
    add(filled, "group-files-1", [("klasse.zip", b"PK\3\4")])
    assert f"“{FOLDER}”" in texts(filled)
    train(filled)
    click(filled, next(one.key for one in filled.button if one.label == "Close this note"))
    add(filled, "try-files", [("klasse.zip", b"PK\3\4")])
    assert f"“{FOLDER}”" not in texts(filled), "new images have no classes"
    assert "Unpack" in texts(filled)


@pytest.mark.parametrize("field", ["group-files-1-0", "class-folder-0"])
def test_images_that_are_still_read_stay_with_their_project_when_another_is_opened(
    field: str, page: AppTest, shade: Shade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.text_input(key="name-1").set_value("sun").run()
    (before,) = library.projects().all()
    later: list[Portion] = []

    def held_back(portions: Iterable[Portion]) -> None:
        *waiting, empty = portions
        empty.take()
        later.extend(waiting)

    for module in (images, teach_input):
        monkeypatch.setattr(module, "take_in", held_back)
    files = [(f"all/sun/{name}", data, "image/png") for name, data in contents(shade, tmp_path / "a", SUN, 10, seed=1)]
    page.file_uploader(key=field).set_value(files).run()
    assert len(later) > 1
    show = fewshot.show

    def go_on_and_show() -> None:
        while later:
            later.pop(0).take()
        show()

    monkeypatch.setattr(fewshot, "show", go_on_and_show)
    click(page, "project-new")
    (after,) = library.projects().all()
    assert after.identity == before.identity
    assert len(after.classes[0].photos) == 10
    assert names(page) == ["", ""]
    assert "already there" not in texts(page)
