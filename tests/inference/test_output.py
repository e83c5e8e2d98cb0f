"""Predictions as JSON and CSV, on terminals and in spreadsheets as people have them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from thirtytwo.inference.classifier import Prediction, UnreadableImage
from thirtytwo.inference.output import write_csv, write_json

CAT = Prediction("猫 é.png", 8, 9, "кошка", 0.5, True, (("кошка", 0.5), ("قطة", 0.25)))


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "cp1252", "ascii", "utf-16", "shift_jis", "latin-1"])
def test_json_is_valid_in_any_encoding(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", write_through=True)
    write_json([CAT, UnreadableImage("\udce9.png", "no")], stream, 2)
    found = json.loads(raw.getvalue().decode(encoding))
    assert (found[0]["file"], found[0]["top"]) == ("猫 é.png", "кошка")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_predict_writes_json_under_any_encoding(
    encoding: str, write_model: Callable[..., Path], image_folder: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "model.onnx", classes=("猫", "é", "قطة"))
    command = [
        sys.executable,
        "-m",
        "thirtytwo",
        "predict",
        str(image_folder),
        "--model",
        str(model),
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=True)
    assert {entry["top"] for entry in json.loads(done.stdout)} >= {"猫", "é", "قطة"}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=cmd|'/c calc'!A1", "'=cmd|'/c calc'!A1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("cat", "cat"),
        ("a=1", "a=1"),
        ("'quoted", "'quoted"),
        ("", ""),
    ],
)
def test_text_in_csv_is_never_a_formula(text: str, written: str) -> None:
    stream = io.StringIO()
    write_csv([Prediction(text, 8, 9, text, 0.5, True, ((text, 0.5),)), UnreadableImage(text, text)], stream, 1)
    rows = list(csv.reader(io.StringIO(stream.getvalue(), newline="")))
    assert rows[1] == [written, "8", "9", written, "0.5", "true", written, "0.5", ""]
    assert (rows[2][0], rows[2][-1]) == (written, written)
