"""What libraries write by themselves never reaches the output of a program that uses the Python API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
import thirtytwo

model = thirtytwo.load(sys.argv[1])
model.predict(sys.argv[2])
try:
    thirtytwo.load(sys.argv[3])
except thirtytwo.ThirtytwoError:
    pass
"""


@pytest.mark.long
def test_onnx_runtime_does_not_write_to_stderr(colour_model: Path, image_folder: Path, tmp_path: Path) -> None:
    damaged = bytearray(colour_model.read_bytes())
    damaged[100:160] = bytes(60)
    (tmp_path / "damaged.onnx").write_bytes(damaged)
    words = [colour_model, image_folder / "red.png", tmp_path / "damaged.onnx"]
    found = subprocess.run([sys.executable, "-c", CODE, *map(str, words)], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("", "")
