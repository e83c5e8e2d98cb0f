"""The app as a process with two models and a run, and a browser."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has its own projects and trainings, and Streamlit's state outside of sessions is empty."""
    for variable in ("THIRTYTWO_PROJECTS", "THIRTYTWO_JOBS"):
        monkeypatch.setenv(variable, str(tmp_path_factory.mktemp("state")))
    yield
    streamlit = pytest.importorskip("streamlit")
    streamlit.session_state.clear()


COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250), "grey": (128, 128, 128)}


def encoded(colour: str, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    """An image of one colour, as a file's bytes."""
    stream = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def paint() -> Callable[..., bytes]:
    """`encoded`: an image of one colour, as a file's bytes."""
    return encoded


def shades(folder: Path, colour: tuple[int, int, int], count: int, seed: int) -> list[Path]:
    """Different images of about one colour."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    files = []
    for number in range(count):
        pixels = np.clip(np.array(colour) + random.integers(-40, 41, (12, 12, 3)), 0, 255).astype(np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


@pytest.fixture(scope="session")
def shade() -> Callable[..., list[Path]]:
    """`shades`: different images of about one colour, written to a folder."""
    return shades


def write_explorable_run(place: Path, finished_run: Callable[..., Path]) -> Path:
    """A folder of images, and a run that was evaluated on its test split with some errors."""
    from thirtytwo.data.load import load_dataset

    data = place / "images"
    for split, count in (("train", 4), ("test", 8)):
        for number, name in enumerate(("red", "green", "blue")):
            shades(data / split / name, COLOURS[name], count, seed=number + 10 * count)
    found = load_dataset(str(data))
    assert found.test is not None
    return finished_run(
        place / "runs" / "colours-1",
        truth=found.test.labels,
        rows=found.test.rows,
        classes=found.classes,
        skill=1.0,
        data={"spec": str(data), "fingerprint": found.fingerprint},
    )


def write_cross_validation(place: Path, finished_run: Callable[..., Path]) -> dict[str, Any]:
    """A cross-validation `runs/folded` of 60 images with some errors; returns the content of its `summary.json`."""
    from thirtytwo.data.load import load_dataset
    from thirtytwo.images.content import as_text
    from thirtytwo.report.folds import write_out_of_fold
    from thirtytwo.report.seeds import summarize, write_summary
    from thirtytwo.rundir import RunDir

    for number, name in enumerate(("red", "green", "blue")):
        shades(place / "few" / name, COLOURS[name], 20, seed=50 + number)
    found = load_dataset(str(place / "few"), whole=True)
    parent = place / "runs" / "folded"
    for fold in (1, 2, 3):
        held = found.train.take(np.flatnonzero(np.arange(60) % 3 == fold - 1))
        data = {"spec": str(place / "few"), "fingerprint": found.fingerprint, "name": "few"}
        kept = {"truth": held.labels, "rows": held.rows, "classes": found.classes, "data": data}
        run = RunDir(finished_run(parent / f"fold{fold}", seed=fold, skill=1.0, **kept))
        nothing: dict[str, Any] = {"hashes": [], "rows": []}
        test = {"hashes": as_text(held.hashes), "rows": held.rows.tolist()}
        run.write_json(run.split, {"n_val": 0, "train": nothing, "val": nothing, "test": test, "test_evaluations": 1})
    content = summarize(parent, "few", [1, 2, 3], {"recipe": "fast", "overrides": {}}, 3)
    content |= {"cross_validation": write_out_of_fold(parent, content)}
    write_summary(parent, content)
    return content


@pytest.fixture(scope="session")
def cross_validated(explorable: Path, finished_run: Callable[..., Path]) -> dict[str, Any]:
    """A cross-validation below the runs of the app: the content of its `summary.json`."""
    return write_cross_validation(explorable, finished_run)


@pytest.fixture(scope="session")
def explorable(tmp_path_factory: pytest.TempPathFactory, finished_run: Callable[..., Path]) -> Path:
    """A directory with `runs/colours-1` and the images it was evaluated on."""
    place = tmp_path_factory.mktemp("place")
    write_explorable_run(place, finished_run)
    return place


@dataclass
class Running:
    """`thirtytwo app` as a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: str


def start(*arguments: str, cwd: Path) -> Running:
    """The app on a free port, ready to answer."""
    return started("app", "--port", "0", "--no-browser", *arguments, cwd=cwd)


def started(*arguments: str, cwd: Path) -> Running:
    """A `thirtytwo` command that ends in the app, ready to answer."""
    command = [sys.executable, "-m", "thirtytwo", *arguments]
    screenless = {key: value for key, value in os.environ.items() if key not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, cwd=cwd, env=screenless)
    assert process.stderr is not None
    log, found = "", None
    for line in process.stderr:
        log += line
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            break
    assert found, log
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{found[0]}/_stcore/health", timeout=5):
                return Running(process, found[0], log)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
    raise AssertionError("the app did not answer")


@pytest.fixture
def demonstrated(tmp_path: Path) -> Iterator[Running]:
    """`thirtytwo demo --app` in an empty directory, trained and serving."""
    running = started("demo", "--app", cwd=tmp_path)
    yield running
    running.process.terminate()
    running.process.communicate(timeout=120)


@pytest.fixture
def launch_app() -> Iterator[Callable[..., Running]]:
    """Starts separate apps and stops them."""
    apps: list[Running] = []

    def begin(*arguments: str, cwd: Path) -> Running:
        apps.append(start(*arguments, cwd=cwd))
        return apps[-1]

    yield begin
    for running in apps:
        running.process.terminate()
        running.process.communicate(timeout=120)


@pytest.fixture(scope="session")
def app(explorable: Path, colour_model: Path, write_model: Callable[..., Path]) -> Iterator[Running]:
    """The app with a model of colours, one with another name for blue, and a run."""
    other = write_model(explorable / "other.onnx", classes=("red", "green", "sea"))
    running = start("--model", str(colour_model), "--model", str(other), cwd=explorable)
    yield running
    running.process.terminate()
    running.process.communicate(timeout=120)


@pytest.fixture(scope="module")  # while it is open, no other test of this worker can have an event loop
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def visit(app: Running, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page of the app; afterwards checks that there were no external requests and no script errors."""
    os.environ.pop("DEBUG", None)
    contexts, requested, errors = [], [], []

    def begin(path: str = "", *, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{app.url}/{path}")
        page.wait_for_selector("h1")
        return page

    yield begin
    for context in contexts:
        context.close()
    own = (app.url, app.url.replace("http", "ws"), "data:", "blob:")
    assert not [url for url in requested if not url.startswith(own)], "no external requests"
    assert not errors
