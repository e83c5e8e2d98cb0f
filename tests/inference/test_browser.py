"""The page of `docs/browser.md` gives the predictions of `thirtytwo predict` in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import thirtytwo

DOCS = Path(__file__).parents[2] / "docs" / "browser.md"
TIMEOUT = 120


def block(language: str, only: str = "") -> str:
    """The first code block in a language that contains `only`."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return next(str(code) for code in found if only in code)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page, built as in its documentation."""
    monkeypatch.chdir(tmp_path)
    if shutil.which("npm") is None:
        pytest.skip("needs npm, from which the runtime for browsers comes")
    exec(compile(block("python"), str(DOCS), "exec"), {})
    (tmp_path / "page" / "index.html").write_text(block("html"), encoding="utf-8")
    fetch, *rest = block("bash", only="npm").splitlines()
    try:
        fetched = subprocess.run(fetch, shell=True, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry did not answer in time; the runtime for browsers comes from there")
    if fetched.returncode:
        pytest.skip("npm's registry cannot be reached; the runtime for browsers comes from there")
    for line in rest:
        subprocess.run(line, shell=True, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "page")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.browser
@pytest.mark.long
def test_the_page_predicts_like_predict(address: str, chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    classifier = thirtytwo.load(tmp_path / "page" / "model.onnx")
    size = classifier.info.input_size
    random = np.random.default_rng(0)
    small = [random.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in range(3)]
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, pixels in zip(files, [*small, random.integers(0, 256, (size, size, 3), dtype=np.uint8)], strict=True):
        Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(file)
    answers = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.wait_for_function("document.querySelector('output').value.startsWith('Choose')")
        for file in files:
            page.set_input_files("input", file)
            page.wait_for_function("document.querySelector('output').value.endsWith('%')")
            answers.append(page.evaluate("document.querySelector('output').value"))
            page.evaluate("document.querySelector('output').value = ''")
        browser.close()
    for file, answer in zip(files, answers, strict=True):
        prediction = classifier.predict(file)[0]
        assert isinstance(prediction, thirtytwo.inference.classifier.Prediction)
        text, share = answer.removesuffix(" %").rsplit(", ", 1)
        assert text.endswith(prediction.top)
        assert (text == prediction.top) == prediction.known
        assert float(share) == pytest.approx(100 * prediction.confidence, abs=0.06)
