"""The page Train: from a folder to a trained model, in the background, across stops and restarts of the app."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import jobs, library
from thirtytwo.app.curves import curves
from thirtytwo.app.settings import AppSettings
from thirtytwo.app.training_progress import progress_of
from thirtytwo.app.views import train
from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import ImageError
from thirtytwo.images.decode import decode
from thirtytwo.io import lock_directory
from thirtytwo.rundir import RunDir

MAIN = Path(library.__file__).with_name("main.py")
Shade = Callable[..., list[Path]]
COLOURS = {"sun": (240, 200, 30), "grape": (130, 30, 180), "leaf": (40, 160, 60)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shade: Shade) -> Path:
    """A working directory with a folder `pets` of small images, one of which cannot be read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "settings", AppSettings())
    for seed, (name, colour) in enumerate(COLOURS.items()):
        shade(tmp_path / "pets" / name, colour, 20, seed=seed)
    (tmp_path / "pets" / "sun" / "0.png").write_bytes(b"\x89PNG")
    return tmp_path


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sequence[str]]]:
    """The commands that were started; a process that waits stands for training."""
    given: list[Sequence[str]] = []
    processes: list[subprocess.Popen[bytes]] = []
    code = "import sys, time; print('starting', flush=True); time.sleep(600)"

    def start(arguments: Sequence[str], log: Path) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        given.append(arguments)
        with log.open("ab") as output:
            processes.append(subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output))
        return processes[-1].pid

    monkeypatch.setattr(jobs, "start_process", start)
    yield given
    for process in processes:
        process.kill()
        process.wait(30)


def page() -> AppTest:
    def script() -> None:
        from thirtytwo.app.components import show_error
        from thirtytwo.app.views import train
        from thirtytwo.errors import ThirtytwoError

        try:
            train.show()
        except ThirtytwoError as error:
            show_error(error)

    found = AppTest.from_function(script, default_timeout=60).run()
    assert not found.exception
    return found


def texts(found: AppTest) -> str:
    kinds = ("markdown", "info", "error", "warning", "success", "caption", "code")
    return "\n".join(one.value for kind in kinds for one in getattr(found, kind))


def keys(found: AppTest) -> set[str]:
    return {str(one.key) for one in found.button}


@contextmanager
def held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While another thread, as of another session, holds the lock of a folder."""
    monkeypatch.setattr(jobs, "_LOCK_SECONDS", 0.1)
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock_directory(folder):
            holds.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(10)
    yield
    done.set()
    thread.join()
    monkeypatch.setattr(jobs, "_LOCK_SECONDS", 20.0)


@pytest.mark.slow
def test_options_of_other_data_are_not_kept(place: Path, shade: Shade) -> None:
    for seed, name in enumerate(("cat", "dog")):
        shade(place / "others" / name, (90, 80 * seed, 200), 12, seed=seed)
    found = page()
    for spec in ("pets", "others"):
        found.text_input(key="train-data").set_value(spec)
        found.button(key="train-check").click().run()
        assert not found.exception
        assert found.number_input(key=f"train-limit-{spec}").value is None
        found.number_input(key=f"train-limit-{spec}").set_value(5).run()
    assert "thirtytwo train others --limit-train 5" in texts(found)


@pytest.mark.slow
def test_a_finished_training_whose_results_are_damaged_can_be_closed(
    place: Path, finished_run: Callable[..., Path]
) -> None:
    run = finished_run(place / "runs" / "pets")
    store = jobs.JobStore(place / "jobs", start_process=lambda arguments, log: os.getpid())
    job = store.start("pets", [], place / "runs" / "new").model_copy(update={"pid": None, "run": str(run)})
    store._write(job)
    for name in job.run_dir._missing():
        (run / name).write_text("{}")
    assert job.run_dir.is_finished()
    (run / "metrics.json").write_text("{")
    found = page()
    assert "damaged" in found.error[0].value
    found.button(key="train-forget").click().run()
    assert store.all() == []


@pytest.mark.slow
def test_a_finished_training_has_a_verdict_in_words(place: Path, finished_run: Callable[..., Path]) -> None:
    run = finished_run(place / "runs" / "pets")
    store = jobs.JobStore(place / "jobs", start_process=lambda arguments, log: os.getpid())
    job = store.start("pets", [], place / "runs" / "new").model_copy(update={"pid": None, "run": str(run)})
    store._write(job)
    if not job.run_dir.is_finished():
        for name in job.run_dir._missing():
            (run / name).write_text("{}")
    found = page()
    metrics = json.loads((run / "metrics.json").read_text())
    assert "guessing would be right in" in texts(found)
    assert "-badge[" in texts(found)
    assert "by the answers for the test images" in texts(found)
    assert (f"{metrics['n']} test images are few" in texts(found)) == (metrics["n"] < 100)


def test_the_log_of_a_training_has_no_options_and_commands(place: Path) -> None:
    store = jobs.JobStore(place / "jobs", start_process=lambda arguments, log: os.getpid())
    job = store.start("pets", [], place / "runs" / "pets")
    lines = (
        "trained base: none, training ends with the head (transfer.head_until = 1, for 48 training images)",
        "frozen base: thirtytwo teach FOLDER does this in seconds",
        "data loaded",
        "recipe photos, seed 0, 60 epochs; run directory runs/pets",
    )
    (store.folder / job.identity / "log.txt").write_text("\n".join(lines) + "\n")
    found = page()
    assert not found.exception
    assert "head_until" not in texts(found)
    assert "teach FOLDER" not in texts(found)
    assert [one.value for one in found.caption][-1] == "data loaded"


@pytest.mark.parametrize(
    ("epochs", "lines", "expected"),
    [
        (0, (), "The first epoch is running."),
        (1, (), "The next epoch is running."),
        (0, ("epoch 1/60 done, loss 1.6",), "epoch 1/60 done, loss 1.6"),
        (1, ("epoch 1/60 done", "evaluating on 26 test images"), "evaluating on 26 test images"),
    ],
)
def test_the_status_of_a_training_is_not_a_choice_of_its_log(
    place: Path, finished_run: Callable[..., Path], epochs: int, lines: Sequence[str], expected: str
) -> None:
    store = jobs.JobStore(place / "jobs", start_process=lambda arguments, log: os.getpid())
    job = store.start("pets", [], place / "runs" / "pets")
    run = RunDir(finished_run(place / "runs" / "pets"))
    if epochs:
        run.history.write_text("epoch,seconds\n1,9.5\n")
    start = (
        "no test split: 26 of 120 images were split off as test (seed 0)",
        "recipe photos, seed 0, 60 epochs; run directory runs/pets",
        "device: cpu (no GPU that PyTorch can use)",
        "allocator: keeps freed memory (each step allocates the same memory again; saves page faults)",
    )
    (store.folder / job.identity / "log.txt").write_text("\n".join([*start, *lines]) + "\n")
    found = page()
    assert not found.exception
    assert [one.value for one in found.caption][-1] == expected
    assert "allocator" in found.code[0].value, "in the log"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("pets", "pets"),
        ("photos/pets", "pets"),
        ("photos/cifar10", "photos/cifar10"),
        ("cifar10", "cifar10"),
        ("cifar10?imbalance=10", "cifar10"),
    ],
)
def test_a_training_on_a_folder_is_not_called_as_a_known_data_set(place: Path, data: str, expected: str) -> None:
    for name in ("pets", "cifar10"):
        (place / "photos" / name).mkdir(parents=True)
    jobs.JobStore(place / "jobs", start_process=lambda arguments, log: os.getpid()).start(
        data, [], place / "runs" / "a"
    )
    assert page().header[0].value == f"Training on {expected}"


def test_an_empty_field_says_what_to_enter(place: Path) -> None:
    found = page()
    assert not found.warning
    found.button(key="train-check").click().run()
    assert "CSV file" in found.warning[0].value


@pytest.mark.slow
@pytest.mark.parametrize(("size", "recipe", "cut"), [((200, 100), "photos", False), ((60, 30), "fast", True)])
def test_ends_are_cut_off_only_by_a_recipe_that_crops(
    place: Path, size: tuple[int, int], recipe: str, cut: bool
) -> None:
    for shade, name in enumerate(("cat", "dog")):
        (place / "long" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", size, (90 * shade, 20 * number, 90)).save(place / "long" / name / f"{number}.png")
    found = page()
    found.text_input(key="train-data").set_value("long")
    found.button(key="train-check").click().run()
    assert not found.exception
    assert found.selectbox(key="train-recipe-long").value == recipe
    assert ("Ends that are cut off" in texts(found)) is cut


def test_errors_of_a_training_are_without_the_words_of_a_terminal(place: Path) -> None:
    store = jobs.JobStore(place / "jobs", start_process=lambda arguments, log: os.getpid())
    job = store.start("pets", [], place / "runs" / "pets")
    problem = "3 images cannot cover 5 classes. Set --limit-train (data.limit_train) to at least 5."
    (store.folder / job.identity / "log.txt").write_text(f"thirtytwo: {problem}\n")
    store._write(job.model_copy(update={"pid": None}))
    found = page()
    assert found.error[0].value.endswith("3 images cannot cover 5 classes. Set “Most training images” to at least 5.")


@pytest.mark.slow
def test_from_a_folder_to_a_running_training(
    place: Path, trainings: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = page()
    found.text_input(key="train-data").set_value("nothing")
    found.button(key="train-check").click().run()
    assert "nothing" in found.error[0].value
    found.text_input(key="train-data").set_value("pets")
    found.button(key="train-check").click().run()
    assert not found.exception
    assert "60 images of 3 classes" in texts(found)
    assert "Images that cannot be read: 1 image" in texts(found)
    assert found.selectbox(key="train-recipe-pets").options[0] == "fast (recommended)"
    assert "because the data has 60 small images" in texts(found)
    assert "seconds" in next(one.value for one in found.markdown if "about 20 images per class" in one.value)
    assert "train-few-shot" in keys(found)
    assert "further" not in found.selectbox(key="train-recipe-pets").options, "it builds on a finished run"
    assert found.checkbox(key="train-skip-True-pets").value
    found.selectbox(key="train-recipe-pets").set_value("digits")
    found.number_input(key="train-epochs-pets").set_value(2)
    found.number_input(key="train-limit-pets").set_value(30)
    found.number_input(key="train-seed-pets").set_value(7)
    found.selectbox(key="train-weights-pets").set_value("Rare classes count more").run()
    options = (
        "--recipe digits --epochs 2 --limit-train 30 --seed 7 --set train.class_weights=balanced --skip-unreadable"
    )
    assert f"thirtytwo train pets {options}" in texts(found)
    found.button(key="train-start").click().run()
    run = place / "runs" / "pets-digits-seed7"
    assert trainings == [["train", "--run", str(run), *options.split(), "--", "pets"]]
    assert "train-stop" in keys(found)

    with held(place / "jobs", monkeypatch):
        found.button(key="train-stop").click().run()
        assert not found.exception
        assert "in use" in found.error[0].value
    other = page()  # another session
    assert {"train-stop"} <= keys(other)
    assert not {"train-start", "train-check"} & keys(other)
    store = jobs.JobStore(jobs.jobs_dir())
    (job,) = store.all()
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while jobs._process(job) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    other.run()
    assert "was killed" in other.error[0].value
    assert {"train-resume", "train-check"} <= keys(other)
    other.button(key="train-resume").click().run()
    assert trainings[1] == trainings[0], "training had not started, so it is started again"
    assert "train-stop" in keys(other)


def test_why_nothing_can_be_trained_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_LIBRARIES", ("torch_of_nobody",))
    found = page()
    assert "torch_of_nobody is missing" in found.warning[0].value
    assert found.code[0].value == train.INSTALL
    monkeypatch.setattr(library, "settings", AppSettings(host="0.0.0.0"))
    found = page()
    assert "while other devices can open the app" in found.info[0].value
    assert not found.text_input


def test_data_that_cannot_be_used_and_names_that_are_markdown(place: Path) -> None:
    name = "none :red[a] *b*"
    (place / name / "cat").mkdir(parents=True)
    (place / name / "cat" / "a.jpg").write_bytes(b"no image")
    found = page()
    found.text_input(key="train-data").set_value(name)
    found.button(key="train-check").click().run()
    assert not found.exception
    assert found.error
    assert ":red[a]" not in texts(found)
    assert "*b*" not in texts(found).replace("\\*", "")
    assert "train-start" not in keys(found)


def test_data_that_training_refuses_is_not_offered(place: Path) -> None:
    for shade, name in enumerate(("train/a", "train/b", "test/a", "test/b", "test/c")):
        (place / "split" / name).mkdir(parents=True)
        for number in range(4):
            color = (40 * shade, 60 * number, 90)
            Image.new("RGB", (20, 20), color).save(place / "split" / name / f"{number}.png")
    found = page()
    found.text_input(key="train-data").set_value("split")
    found.button(key="train-check").click().run()
    assert not found.exception
    assert "train has no images of 'c'" in found.error[0].value.replace("\\", "")
    assert "train-start" not in keys(found)


def test_a_training_that_met_too_large_images_says_so_without_the_words_of_a_terminal(
    place: Path, paint: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "2_000_000")
    with pytest.raises(ImageError) as caught:
        decode(paint("blue", (2000, 1001)), "large.png")
    store = jobs.JobStore(place / "jobs", start_process=lambda arguments, log: os.getpid())
    job = store.start("pets", [], place / "runs" / "pets")
    (store.folder / job.identity / "log.txt").write_text(f"thirtytwo: {caught.value}\n")
    store._write(job.model_copy(update={"pid": None}))
    found = page()
    assert "failed" in found.error[0].value
    assert texts(found).count("Save it smaller, with at most 2 megapixels, and try again.") == 2, "and in the log"
    assert "THIRTYTWO" not in texts(found)


def row(seconds: float) -> dict[str, float]:
    return {"seconds": seconds}


def recipe(**tables: Any) -> Recipe:
    return Recipe.model_validate({"name": "one", "model": {"name": "fastnet"}} | tables)


def test_time_left() -> None:
    plain = recipe(schedule={"epochs": 10})
    assert progress_of([], plain, 3.0).left is None
    assert progress_of([row(9.0), row(2.0), row(2.0), row(2.0)], plain, 1.0).left == pytest.approx(11.0)
    assert progress_of([row(2.0)] * 10, plain, 50.0).share == 1.0
    assert "about 2\u00a0min left" in progress_of([row(13.0)], plain, 0.0).text
    assert "about 1\u00a0h 30\u00a0min left" in progress_of([row(600.0)], plain, 0.0).text
    transfer = recipe(schedule={"epochs": 10}, transfer={"pretrained": "imagenet", "head_until": 0.4})
    assert progress_of([row(1.0)] * 4, transfer, 0.0).left is None
    assert "first 4 epochs" in progress_of([row(1.0)] * 4, transfer, 0.0).text
    assert progress_of([row(1.0)] * 4 + [row(8.0)], transfer, 0.0).left == pytest.approx(40.0)


def test_one_epoch_is_not_several() -> None:
    assert "only epoch is done" in progress_of([row(1.0)], recipe(schedule={"epochs": 1}), 0.0).text
    transfer = recipe(schedule={"epochs": 5}, transfer={"pretrained": "imagenet", "head_until": 0.2})
    assert "first epoch trains only the last layer" in progress_of([row(1.0)], transfer, 0.0).text


def test_time_left_where_only_the_head_is_trained() -> None:
    """The first epoch also computes the features that all later ones use."""
    head = recipe(schedule={"epochs": 10}, transfer={"pretrained": "imagenet", "head_until": 1})
    assert progress_of([row(600.0)], head, 0.0).left is None
    assert "second epoch" in progress_of([row(600.0)], head, 0.0).text
    assert progress_of([row(600.0), row(2.0)], head, 0.0).left == pytest.approx(16.0)
    assert progress_of([row(2.0)] * 10, head, 0.0).share == 1.0
    growing = recipe(data={"image_size": 64}, schedule={"epochs": 4, "resolution": [{"size": 32, "until": 0.5}]})
    assert progress_of([row(1.0)] * 2, growing, 0.0).left == pytest.approx(8.0)


def wait_for_script(page: Any) -> None:
    page.wait_for_timeout(300)  # until the server got what was done
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


@pytest.mark.browser
@pytest.mark.long
def test_a_training_survives_the_app(
    launch_app: Callable[..., Any], browser: Any, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = launch_app(cwd=place)
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    page.set_default_timeout(60_000)
    page.goto(f"{app.url}/train")
    page.get_by_label("Folder, CSV file or known data set", exact=True).fill("pets")
    page.get_by_role("button", name="Check this data").click()
    page.wait_for_selector("text=Start training")
    wait_for_script(page)
    page.get_by_role("combobox", name="Recipe").fill("digits")
    page.get_by_role("option", name="digits", exact=True).click()
    wait_for_script(page)
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Epochs", exact=True).fill("500")
    page.keyboard.press("Tab")
    page.get_by_text("The same in a terminal", exact=True).click()
    page.wait_for_selector("text=--epochs 500")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_selector(".tt-curves img[alt^='Accuracy after epoch']")
    page.wait_for_selector("text=/Epoch \\d+ of 500, .* left/")
    app.process.terminate()
    app.process.communicate(timeout=30)
    (job,) = jobs.JobStore(place / "jobs").all()
    assert jobs._start_time(job.pid or 0), "training goes on"

    app = launch_app(cwd=place)
    page.goto(f"{app.url}/train")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector("text=was stopped. The last completed epoch is saved.")
    stopped = len((Path(job.run) / "history.csv").read_text().splitlines()) - 1
    assert stopped < 500
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Use this model").wait_for(timeout=400_000)
    history = (Path(job.run) / "history.csv").read_text().splitlines()
    assert len(history) == 501, "it went on where it was stopped"
    assert json.loads((Path(job.run) / "metrics.json").read_text())["n"] > 0
    page.get_by_text("Show the report here").click()
    assert page.frame_locator("iframe").first.locator("h1").first.inner_text()
    page.get_by_role("button", name="Explore its answers").click()
    page.wait_for_selector("h1:has-text('Explore')")
    page.wait_for_selector("[data-testid=stMetric]")
    assert page.get_by_role("combobox", name="Run").input_value() == Path(job.run).name
    page.get_by_role("link", name="Train", exact=True).click()
    page.get_by_role("button", name="Use this model").click()
    page.wait_for_selector("h1:has-text('Classify')")
    page.wait_for_selector("text=It can name grape, leaf, sun.")
    page.close()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_validation_loss_without_a_number_hides_no_curve(value: float) -> None:
    history = [
        {"epoch": 1.0, "train_loss": 1.2, "val_loss": value, "train_accuracy": 0.5, "val_accuracy": 0.4},
        {"epoch": 2.0, "train_loss": 1.0, "val_loss": 1.1, "train_accuracy": 0.6, "val_accuracy": 0.5},
        {"epoch": 3.0, "train_loss": 0.9, "val_loss": value, "train_accuracy": 0.7, "val_accuracy": 0.6},
    ]
    drawn = curves(history)
    assert drawn.count("<img") == 2
    assert "validation 1.1" in drawn
    for chart in re.findall(r"base64,([^\"]+)", drawn):
        assert not re.search(r"\b(nan|inf)\b", base64.b64decode(chart).decode())
