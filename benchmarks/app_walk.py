"""A newcomer's walk through the app in a headless browser: from `thirtytwo app` to a taught model in use.

    THIRTYTWO_DATA=DATA python benchmarks/app_walk.py

Two ways: a folder with one subfolder per class, and files for each class by hand. Both teach with 36 photographs of
TrashNet, enlarged to 12 megapixels as of a phone, and use the model on 6 others. Counted are the actions of the user:
clicks, names typed, files chosen. Seconds are those of the machine alone; nobody reads or thinks in between. Then the
page is reloaded, and everything must still be there. Too many actions or something lost end with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from thirtytwo.io import write_json

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

RESULTS = Path(__file__).parent / "results" / "app_walk.json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CLASSES, EACH, NEW = ("cardboard", "glass", "metal"), 12, 2
MOST_ACTIONS = 12
SIZE = (4000, 3000)
SEED = 0


class Walk:
    """The actions of a user on a page, counted, with the seconds that the app took for each."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.steps: list[tuple[str, float]] = []

    def do(self, what: str, action: Callable[[], object], until: Callable[[], object]) -> float:
        """Do something and wait until its effect is there; returns the seconds."""
        started = time.perf_counter()
        action()
        until()
        seconds = time.perf_counter() - started
        self.steps.append((what, round(seconds, 2)))
        self.wait()
        return seconds

    def wait(self) -> None:
        """Wait until the page is drawn, which a user would not notice."""
        self.page.wait_for_timeout(300)
        self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")

    def has(self, selector: str) -> Callable[[], object]:
        """A function that waits for an element."""
        return lambda: self.page.wait_for_selector(selector)

    def images(self, number: int, count: int) -> Callable[[], object]:
        """A function that waits for the thumbnails of a class."""
        return self.has(f".st-key-group-{number} .tt-thumbnails li >> nth={count - 1}")


def main() -> int:
    parser = argparse.ArgumentParser(description="A newcomer's walk through the app.")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    photographs = Path(os.environ.get("THIRTYTWO_DATA", "")) / "trashnet"
    if program is None or not photographs.is_dir():
        print("skipped: needs a Chromium on the path, and trashnet in THIRTYTWO_DATA")
        return 0
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        write_photographs(photographs, Path(place))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        walks = {
            way: [visit(browser, Path(place), walk) for _ in range(options.repeats)]
            for way, walk in (("folder", by_folder), ("by_hand", by_hand))
        }
        browser.close()
    found = {
        "what": "actions, and seconds without a person's, to a taught model of 3 classes used on new photographs",
        "photographs": EACH * len(CLASSES),
        "new_photographs": NEW * len(CLASSES),
        "megapixels": round(SIZE[0] * SIZE[1] / 1e6),
        "most_actions": MOST_ACTIONS,
        "ways": {way: summarize(results) for way, results in walks.items()},
        "n": options.repeats,
        "seed": SEED,
        "hardware": hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(RESULTS, found)
    print(json.dumps(found, indent=1))
    ways = found["ways"]
    assert isinstance(ways, dict)
    return 0 if all(way["actions"] <= MOST_ACTIONS and way["nothing_lost"] for way in ways.values()) else 1


def write_photographs(source: Path, place: Path) -> None:
    """Write 12 photographs of each class to `place/photographs/CLASS`, and others to `place/new`."""
    random = np.random.default_rng(SEED)
    for name in CLASSES:
        files = sorted((source / name).iterdir())
        for number, index in enumerate(random.permutation(len(files))[: EACH + NEW]):
            folder = place / "photographs" / name if number < EACH else place / "new"
            folder.mkdir(parents=True, exist_ok=True)
            with Image.open(files[index]) as image:
                large = image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
            large.save(folder / f"IMG_{name}_{number}.jpg", quality=90)


@contextmanager
def serve(projects: Path) -> Iterator[str]:
    """The address of the app, with its own folder of projects."""
    command = [sys.executable, "-m", "thirtytwo", "app", "--port", "0", "--no-browser"]
    environment = {**os.environ, "THIRTYTWO_PROJECTS": str(projects)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=projects, env=environment)
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found, "the app did not start"
        while True:
            with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{found[0]}/_stcore/health"):
                break
            time.sleep(0.05)
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)


def visit(browser: Any, place: Path, teach: Callable[[Walk, Path], None]) -> dict[str, Any]:
    """One walk in a new app: its steps, the seconds to the first answer, and whether something was lost."""
    with tempfile.TemporaryDirectory() as projects:
        started = time.perf_counter()
        with serve(Path(projects)) as address:
            page = browser.new_page()
            page.set_default_timeout(120_000)
            page.goto(address)
            page.wait_for_selector("input[type=file]", state="attached")
            ready = time.perf_counter() - started
            walk = Walk(page)
            walk.wait()
            open_page = page.get_by_role("link", name="Add classes")
            walk.do("open the page Add classes", open_page.click, walk.has("h1:has-text('Add classes')"))
            teach(walk, place / "photographs")
            train = page.get_by_role("button", name="Train")
            walk.do("train", train.click, walk.has("[data-testid=stMetricValue]"))
            answers = use(walk, place / "new")
            kept = read(page)
            page.reload()
            page.wait_for_selector(f".tt-card >> nth={NEW * len(CLASSES) - 1}")
            walk.wait()
            return {"ready": ready, "steps": walk.steps, **answers, "lost": read(page) != kept, "kept": kept}


def by_folder(walk: Walk, photographs: Path) -> None:
    radio = walk.page.get_by_role("radio", name="Folder or ZIP")
    walk.do("choose Folder or ZIP", radio.click, walk.has(".st-key-class-folders"))
    field = walk.page.locator(".st-key-class-folders input[type=file]").first
    walk.do("choose the folder", lambda: field.set_input_files(photographs), walk.images(len(CLASSES), EACH))


def by_hand(walk: Walk, photographs: Path) -> None:
    for number, name in enumerate(CLASSES, start=1):
        box = f".st-key-group-{number}"
        if number > 2:
            walk.do("add a class", walk.page.get_by_role("button", name="Add a class").click, walk.has(box))

        def enter(number: int = number, name: str = name) -> None:
            walk.page.get_by_label(f"Name of class {number}").fill(name)
            walk.page.keyboard.press("Tab")

        words = f"name class {number}"
        gone = "(words) => !document.body.innerText.includes(words)"
        walk.do(words, enter, partial(walk.page.wait_for_function, gone, arg=words))
        files, field = sorted((photographs / name).iterdir()), walk.page.locator(f"{box} input[type=file]")
        walk.do(f"add images of class {number}", partial(field.set_input_files, files), walk.images(number, EACH))


def use(walk: Walk, new: Path) -> dict[str, Any]:
    """Classify new photographs with the taught model: first one, for the time to its answer, then the others."""
    files = sorted(new.iterdir())
    field = walk.page.get_by_test_id("stFileUploader").last.locator("input[type=file]")
    first = walk.do("classify a new photograph", lambda: field.set_input_files(files[0]), walk.has(".tt-card"))
    last = walk.has(f".tt-card >> nth={len(files) - 1}")
    field = walk.page.get_by_test_id("stFileUploader").last.locator("input[type=file]")
    walk.do("classify the others", lambda: field.set_input_files(files[1:]), last)
    cards = [text.split("\n") for text in walk.page.locator(".tt-card").all_inner_texts()]
    texts = [" ".join(card) for card in cards]
    tops = walk.page.locator(".tt-card .tt-top").all_inner_texts()
    right = sum(f"IMG_{top.split('?')[0]}_" in text for top, text in zip(tops, texts, strict=True))
    return {"first_answer": first, "right": right}


def read(page: Any) -> dict[str, Any]:
    """What must not be lost: names, numbers of images, the estimate, and the answers."""
    numbers = range(1, len(CLASSES) + 1)
    return {
        "names": [page.get_by_label(f"Name of class {number}").input_value() for number in numbers],
        "images": [page.locator(f".st-key-group-{number} .tt-thumbnails li").count() for number in numbers],
        "estimate": page.inner_text("[data-testid=stMetricValue]"),
        "answers": page.locator(".tt-card .tt-top").all_inner_texts(),
    }


def summarize(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the walks of one way."""
    steps = [[seconds for _, seconds in one["steps"]] for one in results]
    return {
        "actions": len(results[0]["steps"]),
        "page_ready_s": round(median(one["ready"] for one in results), 2),
        "steps_s": {
            what: round(median(step), 2)
            for (what, _), step in zip(results[0]["steps"], zip(*steps, strict=True), strict=True)
        },
        "first_answer_s": round(median(one["first_answer"] for one in results), 2),
        "total_s": round(median(one["ready"] + sum(seconds for _, seconds in one["steps"]) for one in results), 1),
        "expected_accuracy": results[0]["kept"]["estimate"].replace("\u00a0", " "),
        "new_photographs_right": results[0]["right"],
        "nothing_lost": not any(one["lost"] for one in results),
    }


if __name__ == "__main__":
    sys.exit(main())
