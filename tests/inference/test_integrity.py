"""Damaged model files are refused when they are loaded, and never answer with NaN."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from thirtytwo.cli.main import run_command
from thirtytwo.errors import ModelFileError
from thirtytwo.inference.classifier import load
from thirtytwo.inference.integrity import with_checksum
from thirtytwo.inference.model_file import read_info
from thirtytwo.inference.session import open_session
from thirtytwo.io import CHECKSUM_KEY

CASES = 200


def change_weights(model: Path, target: Path, change: Callable[[np.ndarray], np.ndarray], *, raw: bool = True) -> Path:
    loaded = onnx.load(model)
    for tensor in loaded.graph.initializer:
        if tensor.name == "weights":
            changed = change(numpy_helper.to_array(tensor).copy())
            if raw:
                tensor.CopyFrom(numpy_helper.from_array(changed, "weights"))
            else:
                tensor.CopyFrom(onnx.helper.make_tensor("weights", tensor.data_type, tensor.dims, changed.ravel()))
    onnx.save(loaded, target)
    return target


def one_nan(values: np.ndarray) -> np.ndarray:
    values[0, 0] = np.nan
    return values


@pytest.mark.parametrize("raw", [True, False], ids=["raw_data", "float_data"])
@pytest.mark.parametrize("read", [read_info, open_session, load])
def test_nan_weights_are_refused(
    tmp_path: Path, colour_model: Path, read: Callable[[Path], object], *, raw: bool
) -> None:
    path = change_weights(colour_model, tmp_path / "model.onnx", one_nan, raw=raw)
    with pytest.raises(ModelFileError, match=r"1 of 9 weights") as caught:
        read(path)
    assert str(path) in caught.value.message


def test_overflow_is_an_error_that_names_the_model(tmp_path: Path, colour_model: Path, image_folder: Path) -> None:
    path = change_weights(colour_model, tmp_path / "model.onnx", lambda values: values * np.float32(3e38))
    with pytest.raises(ModelFileError, match=r"not a number"):
        load(path).predict(image_folder / "red.png")


@pytest.mark.parametrize("format", ["table", "json", "csv"])
def test_predict_with_a_broken_model_ends_with_a_sentence(
    tmp_path: Path, colour_model: Path, image_folder: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    path = change_weights(colour_model, tmp_path / "model.onnx", one_nan)
    assert run_command(["predict", str(image_folder), "--model", str(path), "--format", format]) == 2
    assert "NaN" in capsys.readouterr().err


def test_checksum(tmp_path: Path, colour_model: Path) -> None:
    signed = with_checksum(colour_model.read_bytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(signed)
    assert [entry.key for entry in onnx.load(path).metadata_props] == ["thirtytwo", CHECKSUM_KEY]
    assert load(path).classes == load(colour_model).classes
    assert with_checksum(signed) == signed, "signing again changes nothing"


def test_flipped_bits_are_noticed(tmp_path: Path, colour_model: Path) -> None:
    """Seeded: a model with any flipped bit is refused, unless the bit is in the checksum's own key."""
    signed = with_checksum(colour_model.read_bytes())
    path = tmp_path / "model.onnx"
    own_entry = len(signed) - signed.rindex(CHECKSUM_KEY.encode()) + 4
    random = np.random.default_rng(0)
    for _ in range(CASES):
        position, bit = int(random.integers(len(signed) - own_entry)), int(random.integers(8))
        damaged = bytearray(signed)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError):
            read_info(path)


def test_other_damage_raises_nothing_foreign(tmp_path: Path, colour_model: Path) -> None:
    """Seeded: cut, repeated and overwritten parts, accepted or refused with `ModelFileError`."""
    data = colour_model.read_bytes()
    path = tmp_path / "model.onnx"
    random = np.random.default_rng(1)
    for case in range(CASES):
        first, last = sorted(int(value) for value in random.integers(0, len(data), 2))
        parts = [
            data[:first] + data[last:],
            data[:last] + data[first:],
            data[:first] + random.bytes(8) + data[first + 8 :],
        ]
        path.write_bytes(parts[case % 3])
        with suppress(ModelFileError):
            read_info(path)


def test_written_files_have_a_checksum(tmp_path: Path, colour_model: Path) -> None:
    from thirtytwo.export.metadata import rewrite_info

    path = tmp_path / "model.onnx"
    path.write_bytes(colour_model.read_bytes())
    rewrite_info(path, read_info(path))
    assert checksums(path) == 1
    rewrite_info(path, read_info(path))
    assert checksums(path) == 1


def checksums(path: Path) -> int:
    return sum(entry.key == CHECKSUM_KEY for entry in onnx.load(path).metadata_props)


def test_metadata_stays_readable_as_json(tmp_path: Path, colour_model: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(with_checksum(colour_model.read_bytes()))
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(entries["thirtytwo"])["classes"] == ["red", "green", "blue"]
