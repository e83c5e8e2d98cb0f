"""What the camera of the page Add classes accepts of a browser, and its answers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from thirtytwo.app.camera import MAX_FRAME_BYTES, answer, decode_frame
from thirtytwo.app.library import Entry

START = "data:image/jpeg;base64,"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (START + base64.b64encode(b"frame").decode(), b"frame"),
        ("data:image/svg+xml;base64,PHN2Zz4=", None),
        (START + "not base64 ☂", None),
        (START + "A" * (2 * MAX_FRAME_BYTES), None),
        (None, None),
        (["data:"], None),
    ],
)
def test_frames_are_checked(text: object, expected: bytes | None) -> None:
    assert decode_frame(text) == expected


def test_a_frame_is_answered(colour_model: Path, paint: Callable[..., bytes]) -> None:
    entry = Entry("colours", colour_model, "test")
    found = answer(entry, "7", paint("blue", (64, 48), "JPEG"))
    assert (found["id"], found["top"].partition(" (")[0]) == ("7", "blue")
    assert found["shares"][0][0] == "blue"
    assert answer(entry, "8", b"no image") == {"id": "8", "top": "The frame cannot be read.", "shares": []}
