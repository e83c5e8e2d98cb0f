"""Predictions of a model for labelled images, and the parquet file that keeps them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import RunError, require
from thirtytwo.io import atomic_write

PROBABILITY_PREFIX = "p_"
_CONTENT_KEY = b"thirtytwo_content"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a model for labelled images.

    Attributes:
        classes: C class names.
        truth: true class of each image, int64 `(N,)`, indices into `classes`.
        probabilities: float32 `(N, C)`; each row sums to 1.
        rows: positions of the images in the split of the data set, int64 `(N,)`.
        files: file of each image; None where images are not files.
    """

    classes: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    files: tuple[str, ...] | None = None

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Index of the most probable class, int64 `(N,)`."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Probability of the most probable class, float32 `(N,)`."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float32)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable class is the true one, bool `(N,)`."""
        return np.asarray(self.predicted == self.truth)

    def name_of(self, position: int) -> str:
        """The file of an image, or its row (`row 7`) where it did not come from a file."""
        return self.files[position] if self.files else f"row {int(self.rows[position])}"


def write_predictions_file(path: Path, predictions: Predictions, content: str = "") -> None:
    """Write predictions as parquet: `row`, `file` (if known), `true`, `predicted` (class names), `p_<class>`.

    `content` is a hash of the images (`data.run_data.content_of`), kept in the metadata.
    """
    arrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
    names = np.asarray(predictions.classes, dtype=object)
    columns: dict[str, Any] = {"row": predictions.rows}
    if predictions.files is not None:
        columns["file"] = list(predictions.files)
    columns["true"] = names[predictions.truth]
    columns["predicted"] = names[predictions.predicted]
    for index, name in enumerate(predictions.classes):
        columns[PROBABILITY_PREFIX + name] = predictions.probabilities[:, index]
    table = arrow.table(columns)
    if content:
        table = table.replace_schema_metadata({_CONTENT_KEY: content.encode()})
    # as a stream: pyarrow takes a path such as a:b/c for an address
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        parquet.write_table(table, stream)


def read_predictions_file(path: Path, fix: str) -> tuple[Predictions, str]:
    """Read a file that `write_predictions_file` wrote: the predictions, and the hash of their images if it has one.

    Raises:
        RunError: the file is damaged, or holds no predictions; `fix` says what to do.
    """
    parquet = require("pyarrow.parquet", "train")
    try:
        with path.open("rb") as stream:
            table = parquet.read_table(stream)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise RunError(f"{path} cannot be read: {os.strerror(error.errno)}.", "Check its permissions.") from None
        raise RunError(f"{path} is damaged, or not a parquet file.", fix) from None
    columns = [name for name in table.column_names if name.startswith(PROBABILITY_PREFIX)]
    classes = tuple(name.removeprefix(PROBABILITY_PREFIX) for name in columns)
    index = {name: number for number, name in enumerate(classes)}
    fits = (
        bool(classes) and {"row", "true"} <= set(table.column_names) and index.keys() >= set(table["true"].to_pylist())
    )
    if not fits:
        raise RunError(f"{path} does not hold predictions.", fix)
    found = Predictions(
        classes=classes,
        truth=np.array([index[name] for name in table["true"].to_pylist()], dtype=np.int64),
        probabilities=np.stack([table[name].to_numpy() for name in columns], axis=1).astype(np.float32),
        rows=table["row"].to_numpy().astype(np.int64),
        files=tuple(table["file"].to_pylist()) if "file" in table.column_names else None,
    )
    return found, (table.schema.metadata or {}).get(_CONTENT_KEY, b"").decode()
