"""What every test may rely on: no network, no cache of the user's, real data and a browser only where they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def real_data() -> Path | None:
    """The folder that holds CIFAR-10 and CIFAR-100, or None."""
    root = os.environ.get("THIRTYTWO_DATA")
    return Path(root) if root and (Path(root) / "cifar10").is_dir() else None


def browser() -> str | None:
    """The path of a Chromium, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("realdata") and real_data() is None:
        pytest.skip("needs CIFAR: set THIRTYTWO_DATA to a folder with cifar10/ and cifar100/")
    if item.get_closest_marker("browser") and browser() is None:
        pytest.skip("needs a Chromium on the path")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["THIRTYTWO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data; only for tests marked `realdata`."""
    root = real_data()
    assert root is not None, "mark this test with @pytest.mark.realdata"
    return root


@pytest.fixture(scope="session")
def chromium() -> str:
    """A browser's path; only for tests marked `browser`."""
    found = browser()
    assert found is not None, "mark this test with @pytest.mark.browser"
    return found
