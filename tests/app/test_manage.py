"""The model library: names, deletion, comparison, estimates beside measured accuracy, and the export menu."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("streamlit")

import onnx
from streamlit.testing.v1 import AppTest

from thirtytwo.app import export_menu, library, manage
from thirtytwo.app.library import BUNDLED, FROM_OPTION, entries, load_classifier
from thirtytwo.app.model_table import model_rows, table_of
from thirtytwo.app.project import Project
from thirtytwo.app.project_checks import changes_since
from thirtytwo.app.project_store import ProjectStore
from thirtytwo.app.settings import AppSettings
from thirtytwo.app.taught_result import result_of
from thirtytwo.errors import InputError, RunError
from thirtytwo.export.webpage import FOLDER, web_page
from thirtytwo.fewshot import fit_linear_probe
from thirtytwo.images.decode import load_image
from thirtytwo.images.pixels import Pixels
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.integrity import with_checksum
from thirtytwo.rundir import RunDir
from thirtytwo.text import percent

Shade = Callable[..., list[Path]]


@pytest.fixture
def place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished_run: Callable[..., Path],
    write_model: Callable[..., Path],
    colour_model: Path,
    shade: Shade,
) -> Path:
    """A working directory with a run `mine`, a taught project, and a model of --model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setattr(library, "settings", AppSettings(models=(str(write_model(tmp_path / "given.onnx")),)))
    finished_run(tmp_path / "runs" / "mine")
    teach(library.projects(), colour_model, tmp_path, shade)
    return tmp_path


def teach(store: ProjectStore, base: Path, place: Path, shade: Shade) -> str:
    """A project that was taught to distinguish two colors; returns its identity."""
    identity = store.create().identity
    for number, (name, colour) in enumerate({"sun": (240, 200, 30), "grape": (130, 30, 180)}.items(), start=1):
        files = shade(place / "photos" / name, colour, 8, seed=number)
        store.change(identity, partial(Project.rename, number=number, name=name))
        store.add_photos(identity, number, [(file.name, file.read_bytes()) for file in files])
    project = store.read(identity)
    classifier = Classifier(base)
    pixels: dict[str, list[Pixels]] = {}
    digests: dict[bytes, str] = {}
    for one in project.classes:
        pixels[one.name] = [load_image(store.image(identity, photo).path, 8).pixels for photo in one.photos]
        digests |= {image.tobytes(): photo.digest for image, photo in zip(pixels[one.name], one.photos, strict=True)}
    probe = fit_linear_probe(classifier, pixels)
    store.teach(identity, result_of(probe, project, "model", digests), probe)
    return identity


def page(address: str = "") -> AppTest:
    def script() -> None:
        from thirtytwo.app.views.models import show

        show()

    found = AppTest.from_function(script, default_timeout=60)
    if address:
        found.query_params["model"] = address
    found.run()
    assert not found.exception
    return found


def number_of(name: str) -> int:
    return [one.name for one in entries()].index(name)


def click(found: AppTest, *names: str) -> None:
    for key in names:
        found.button(key=key).click().run()
        assert not found.exception


def texts(found: AppTest) -> str:
    kinds = ("markdown", "info", "error", "success", "caption")
    return "\n".join(one.value for kind in kinds for one in getattr(found, kind))


@pytest.mark.slow
def test_rename_delete_and_undo(place: Path) -> None:
    assert [one.name for one in entries()][:2] == ["given", "sun or grape"]
    found = page()
    mine = number_of("mine")
    click(found, f"rename-{mine}")
    key = f"new-name-{entries()[mine].path}"
    found.text_input(key=key).set_value("given")
    click(found, "rename-apply")
    assert "'given'" in found.error[0].value
    found.text_input(key=key).set_value("  My  photos ")
    click(found, "rename-apply")
    assert "My photos" in [one.value for one in found.subheader]
    assert number_of("My photos") == mine
    assert "My photos" in [one.value for one in page().subheader], "in other sessions, too"

    click(found, f"delete-{mine}")
    assert "runs/mine" in texts(found)
    click(found, "delete-no")
    assert (place / "runs" / "mine").is_dir()
    with RunDir(place / "runs" / "mine").writing():
        click(found, f"delete-{mine}", "delete-yes")
        assert "in use" in found.error[0].value
    click(found, "delete-yes")
    assert not (place / "runs" / "mine").exists()
    assert (place / "runs" / ".trash" / "mine" / "model.onnx").is_file()
    assert "My photos" not in [one.value for one in found.subheader]
    with RunDir(place / "runs" / ".trash" / "mine").writing():
        click(found, "model-undo")
        assert "in use" in found.error[0].value
    click(found, "model-undo")
    assert "My photos" in [one.value for one in found.subheader]
    assert not (place / "runs" / ".trash" / "mine").exists()

    taught = number_of("sun or grape")
    click(found, f"delete-{taught}")
    assert "16 images" in texts(found)
    click(found, "delete-yes")
    (project,) = library.projects().all()
    assert project.result is None
    assert len(project.classes[0].photos) == 8
    assert "sun or grape" not in [one.name for one in entries()]


def test_deleting_a_taught_model_names_the_images_that_can_be_read(place: Path) -> None:
    (project,) = library.projects().all()
    library.projects().add_photos(project.identity, 1, [("broken.jpg", b"\xff\xd8\xff\xe0 no photograph")])
    assert "16 images and 1 file that cannot be read" in manage.consequence(entries()[number_of("sun or grape")])


def test_projects_go_on_with_the_new_name_of_a_model(place: Path) -> None:
    store = library.projects()
    (project,) = store.all()
    assert project.result is not None
    result = project.result.model_copy(update={"base": "mine"})
    store.change(project.identity, lambda one: one.with_base("mine").with_result(result))
    manage.rename(entries()[number_of("mine")], "My photos")
    found = store.read(project.identity)
    assert found.result is not None
    assert (found.base, found.result.base) == ("My photos", "My photos")
    assert changes_since(found, "My photos") == []
    manage.rename(entries()[number_of("My photos")], "")
    assert store.read(project.identity).base == "mine"


@pytest.mark.parametrize("taken", [False, True])
def test_a_run_that_comes_back_keeps_its_name(place: Path, taken: bool) -> None:
    manage.rename(entries()[number_of("mine")], "My photos")
    manage.delete(entries()[number_of("My photos")])
    manage.rename(entries()[number_of("sun or grape")], "Fruit")  # names of models that are gone are dropped
    if taken:
        (place / "runs" / "mine").mkdir()
    manage.restore()
    assert "My photos" in {one.name for one in entries()}
    assert (place / "runs" / ("mine-2" if taken else "mine") / "model.onnx").is_file()


def test_only_ones_own_models_are_deleted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {one.origin: one for one in entries()}
    for origin in (BUNDLED, FROM_OPTION):
        assert not manage.can_delete(kinds[origin])
        with pytest.raises(InputError):
            manage.delete(kinds[origin])
        with pytest.raises(InputError):
            manage.rename(kinds[origin], "other")
    monkeypatch.setattr(library, "settings", AppSettings(host="0.0.0.0"))
    with pytest.raises(InputError):
        manage.delete(next(one for one in entries() if one.name == "mine"))
    assert (place / "runs" / "mine").is_dir()
    with RunDir(place / "runs" / "mine").writing(), pytest.raises(RunError):
        manage.move_to_trash(place / "runs" / "mine")


@pytest.mark.slow
def test_estimates_beside_measured_accuracy(place: Path) -> None:
    rows = {row.name: row for row in model_rows(entries())}
    assert "240 test images" in rows["mine"].how
    assert rows["sun or grape"].how.startswith("estimated: each of 16 images")
    assert rows["mine"].interval
    assert rows["sun or grape"].interval
    assert rows["cifar10-tiny"].accuracy
    found = page("sun or grape")
    assert found.title[0].value == "sun or grape"
    assert "What to expect" not in texts(found)
    assert "not a measurement on a test set" in texts(found)
    metrics = [one.proto.body for one in found.get("html") if "most probable class is the true class" in one.proto.body]
    assert len(metrics) == 1
    assert metrics[0].index(">Accuracy<") < metrics[0].index(">Macro F1<")
    click(found, "models-all")
    assert found.title[0].value == "Models"


def test_a_model_of_the_command_teach_has_its_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None, colour_model: Path, shade: Shade
) -> None:
    classifier = Classifier(colour_model)
    images = {
        name: [load_image(file, 8).pixels for file in shade(tmp_path / name, colour, 8, seed=seed)]
        for seed, (name, colour) in enumerate({"sun": (240, 200, 30), "grape": (130, 30, 180)}.items())
    }
    fit_linear_probe(classifier, images).write(tmp_path / "fruits.onnx")
    fit_linear_probe(classifier, {name: some[:1] for name, some in images.items()}).write(tmp_path / "single.onnx")
    names = ("fruits", "single")
    models = tuple(str(tmp_path / f"{name}.onnx") for name in names)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings(models=models))
    found = {entry.name: entry for entry in entries()}
    fruits, single = model_rows(found[name] for name in names)
    assert fruits.accuracy
    assert fruits.interval
    assert fruits.how.startswith("estimated: each of 16 images")
    assert library.expectation_of(found["fruits"]).startswith(
        f"{fruits.accuracy}, 95\u00a0% interval {fruits.interval}"
    )
    assert single.how.startswith("not known: ")
    assert library.expectation_of(found["single"]) == ""


@pytest.mark.slow
def test_a_model_that_is_in_the_list_is_not_added_again(place: Path) -> None:
    found = page()
    before = entries()
    for path in (place / "runs" / "mine", next(one.path for one in before if one.origin == BUNDLED)):
        found.text_input(key="model-path-text").set_value(str(path))
        next(one for one in found.button if one.label == "Add").click().run()
        assert "is in the list already" in found.success[0].value
        assert entries() == before


@pytest.mark.slow
def test_the_page_of_a_model_stays_when_it_is_renamed(place: Path) -> None:
    found = page("mine")
    mine = number_of("mine")
    click(found, f"rename-{mine}")
    found.text_input(key=f"new-name-{entries()[mine].path}").set_value("My photos")
    click(found, "rename-apply")
    assert found.query_params["model"] == "My photos"
    assert "My photos" in [one.value for one in found.title]
    old = page("mine")
    assert "There is no model mine anymore" in old.warning[0].value
    assert "model" not in old.query_params


@pytest.mark.slow
def test_compare_from_the_library(place: Path) -> None:
    found = page()
    mine = number_of("mine")
    click(found, f"compare-{mine}")
    assert found.selectbox(key=f"compare-with-{entries()[mine].path}").options[0] == "given", (
        "one with the same classes first"
    )
    click(found, "compare-open")
    assert found.session_state["models-compared"] == ["mine", "given"]


@pytest.mark.slow
def test_export_menu(place: Path, colour_model: Path) -> None:
    big = widened(colour_model, place / "runs" / "big" / "model.onnx")
    found = page()
    number = number_of("big")
    click(found, f"export-{number}", f"export-{number}-shrink")
    assert "not compared with the original" in texts(found)
    entry = entries()[number]
    small = export_menu._smaller(entry.stamp, "int8")
    assert len(small.data) < 0.65 * big.stat().st_size
    images = [image for image in export_menu.images_for(entries()[number_of("sun or grape")]) if not image.problem]
    assert len(images) == 16
    change = export_menu._change(entry.stamp, "int8", tuple(one.digest for one in images), entry, images)
    assert change.count == 16
    assert change.same >= 15
    assert 0 < change.largest < 0.1
    path = place / "small.onnx"
    path.write_bytes(small.data)
    info = Classifier(path).info
    assert (info.accuracy, info.classes) == (None, load_classifier(entry).classes)

    taught = number_of("sun or grape")
    click(found, f"export-{taught}", f"export-{taught}-shrink")
    assert "contains no float32 weights" in found.error[0].value
    with zipfile.ZipFile(BytesIO(web_page(entry.path))) as archive:
        assert f"{FOLDER}/index.html" in archive.namelist()


def widened(source: Path, target: Path) -> Path:
    """A model file with the same classes, whose last layer has two large factors."""
    model: Any = onnx.load(str(source))
    old = next(node for node in model.graph.node if node.op_type == "MatMul")
    first = np.random.default_rng(0).normal(size=(3, 6000)).astype(np.float32)
    weights = onnx.numpy_helper.to_array(next(one for one in model.graph.initializer if one.name == old.input[1]))
    second = (np.linalg.pinv(first) @ weights).astype(np.float32)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in (("first", first), ("second", second))
    )
    place = list(model.graph.node).index(old)
    model.graph.node.insert(place, onnx.helper.make_node("MatMul", [old.input[0], "first"], ["wide"]))
    old.input[0], old.input[1] = "wide", "second"
    target.parent.mkdir(parents=True)
    target.write_bytes(with_checksum(model.SerializeToString()))
    return target


def test_a_smaller_file_is_compared_on_images_of_all_classes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_menu, "_MAX_COMPARED", 10)
    (project,) = library.projects().all()
    found = {one.digest for one in export_menu.images_for(entries()[number_of("sun or grape")])}
    assert [sum(photo.digest in found for photo in one.photos) for one in project.classes] == [4, 4]


def test_the_card_beside_a_model_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None, write_model: Callable[..., Path]
) -> None:
    model = write_model(tmp_path / "given.onnx")
    value = percent(Classifier(model).info.accuracy or 0.0)
    card = f"On test, n = 9.\n\n| Accuracy | {value} | <b>all</b> |\n"
    model.with_suffix(".md").write_text(card, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings(models=(str(model),)))
    rows = model_rows(entries())
    assert rows[0].interval == "<b>all</b>"
    assert "<b>all" not in table_of(rows)


def test_bundled_models_have_the_accuracy_of_their_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings())
    found = {entry.path.stem: entry for entry in entries() if entry.origin == library.BUNDLED}
    rows = {row.name: row for row in model_rows(found.values())}
    stated = rows["imagenet"]
    assert "stated" in stated.accuracy
    value = stated.accuracy.partition(",")[0]
    assert value in found["imagenet"].path.with_suffix(".md").read_text(encoding="utf-8")
    for name in ("cifar10", "cifar10-tiny", "cifar100", "cifar100-tiny"):
        card = found[name].path.with_suffix(".md").read_text(encoding="utf-8")
        assert f"| Accuracy | {rows[name].accuracy} | {rows[name].interval} |" in card
        assert "10,000 test images" in rows[name].how
