"""Settings of the app: the formats of uploads, and the path prefix behind a proxy."""

from __future__ import annotations

import pytest

from thirtytwo.app.images import TYPES
from thirtytwo.app.settings import AppSettings, streamlit_options
from thirtytwo.images.discover import SUFFIXES


def test_uploads_have_the_formats_of_predict() -> None:
    assert {f".{suffix}" for suffix in TYPES} == SUFFIXES
    assert {"jfif", "avif", "heic", "mpo"} <= set(TYPES)


@pytest.mark.parametrize(
    ("given", "prefix", "option"),
    [("", "", ""), ("/", "", ""), ("/ai", "/ai", "ai"), ("ai/", "/ai", "ai"), ("/team/ai/", "/team/ai", "team/ai")],
)
def test_base_path(given: str, prefix: str, option: str) -> None:
    settings = AppSettings(base_path=given)
    assert settings.base_path == prefix
    assert streamlit_options(settings, 80, open_browser=False)["server.baseUrlPath"] == option
