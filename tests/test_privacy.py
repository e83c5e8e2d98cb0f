"""No telemetry, neither from thirtytwo nor from its libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def test_predicting_leaves_nothing_in_the_home_directory(tmp_path: Path, colour_model: Path) -> None:
    """ONNX Runtime keeps an identifier of the machine and a queue of reports there unless telemetry is disabled."""
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / "grey.png")
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    command = [sys.executable, "-m", "thirtytwo", "predict", str(tmp_path / "grey.png"), "--model", str(colour_model)]
    subprocess.run(command, check=True, capture_output=True, env={**kept, "HOME": str(home)})
    assert not list(home.rglob("*"))


def test_telemetry_is_disabled_in_a_runtime_imported_before(colour_model: Path, tmp_path: Path) -> None:
    code = """
import sys
import onnxruntime
told = []
onnxruntime.disable_telemetry_events = lambda: told.append(True)
import thirtytwo
thirtytwo.load(sys.argv[1])
assert told
"""
    subprocess.run(
        [sys.executable, "-c", code, str(colour_model)], check=True, env={**os.environ, "HOME": str(tmp_path)}
    )
