"""Change the metadata of a model file. Never imports torch."""

from __future__ import annotations

from pathlib import Path

import onnx

from thirtytwo.inference.integrity import with_checksum
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.io import METADATA_KEY, atomic_write


def rewrite_info(path: Path, info: ModelInfo) -> None:
    """Replace the metadata of the model file at `path` by `info`, atomically."""
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {METADATA_KEY: info.model_dump_json()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(with_checksum(model.SerializeToString()))
