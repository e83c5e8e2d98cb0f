"""Memory of the app's process: it does not grow with the number of photographs, nor stay after a session."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.long]

COUNT = 40
ALLOWED_MB = 500
"""Stated in docs/app.md."""


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Different files of 12 megapixels and 3 MB each: one photograph with other bytes after its end."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((4000, 3000), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=92)
    files = []
    for number in range(COUNT):
        files.append(tmp_path / f"IMG_{number}.jpg")
        files[-1].write_bytes(stream.getvalue() + bytes([number]))
    return files


def peak(process: psutil.Process) -> float:
    """Peak of a process's memory in MB; where the system does not record it, what it uses now."""
    status = Path(f"/proc/{process.pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) * 1024 / 1e6 if found else process.memory_info().rss / 1e6


def test_photographs_of_12_megapixels_fit_in_bounded_memory(
    launch_app: Callable[..., Any], browser: Any, photographs: list[Path], tmp_path: Path
) -> None:
    running = launch_app(cwd=tmp_path)
    process = psutil.Process(running.process.pid)
    used = []
    for _ in range(2):  # two sessions, one after the other
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(running.url)
        page.wait_for_selector("h1")
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        page.locator("input[type=file]").first.set_input_files(photographs)
        page.wait_for_selector(f"text={COUNT} images classified", timeout=120_000)
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        page.get_by_text("Grid", exact=True).click()
        page.wait_for_function(f"document.querySelectorAll('.tt-results .tt-tile').length === {COUNT}")
        page.locator("label", has_text="Show heatmap").first.click()
        page.get_by_role("button", name="Cancel").click()  # one heatmap takes a while: not all are computed
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        assert not page.locator("label", has_text="Show heatmap").locator("input").is_checked()
        page.locator(".tt-results .tt-open").last.click()
        page.wait_for_function("document.querySelector('#tt-viewer[open] .tt-viewer-image').naturalWidth === 4000")
        used.append(peak(process))
        page.close()
    print(used)
    total = sum(path.stat().st_size for path in photographs) / 1e6
    assert total > 100, total
    assert max(used) < ALLOWED_MB, used
    assert used[1] - used[0] < total / 2, used
