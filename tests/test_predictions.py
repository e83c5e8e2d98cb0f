from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thirtytwo.data.types import ImageSet
from thirtytwo.errors import RunError
from thirtytwo.predictions import Predictions
from thirtytwo.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run")


def some_predictions(files: tuple[str, ...] | None = None, count: int = 3) -> Predictions:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]], dtype=np.float32)
    return Predictions(
        classes=("row", "true", "grüner Fisch/2"),
        truth=np.array([0, 1, 2], dtype=np.int64)[:count],
        probabilities=probabilities[:count],
        rows=np.array([5, 3, 9], dtype=np.int64)[:count],
        files=files,
    )


@pytest.mark.parametrize("files", [None, ("a.png", "b/ü.png", "c.png")])
def test_predictions_come_back(run: RunDir, files: tuple[str, ...] | None) -> None:
    written = some_predictions(files)
    run.write_predictions("test", written)
    read = run.read_predictions("test")
    assert (read.classes, read.files) == (written.classes, written.files)
    for name in ("truth", "probabilities", "rows", "predicted", "confidence"):
        before, after = getattr(written, name), getattr(read, name)
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype


def test_no_predictions_come_back_as_none(run: RunDir) -> None:
    run.write_predictions("test", some_predictions(count=0))
    read = run.read_predictions("test")
    assert len(read.truth) == 0
    assert read.probabilities.shape == (0, 3)


@pytest.mark.parametrize(("files", "name"), [(("a.png", "b.png"), "b.png"), (None, "row 7")])
def test_an_image_is_named_by_its_file_or_row(files: tuple[str, ...] | None, name: str) -> None:
    rows, labels = np.array([3, 7]), np.array([0, 1])
    images = ImageSet(np.zeros((2, 4, 4, 3), np.uint8), labels, ("x", "y"), rows, files)
    predictions = Predictions(("x", "y"), labels, np.full((2, 2), 0.5, np.float32), rows, files)
    assert predictions.name_of(1) == images.name_of(1) == name
    assert images.name_of(1, "test") == (name if files else f"test {name}")


def test_predicted_and_confidence() -> None:
    predictions = some_predictions()
    assert predictions.predicted.tolist() == [0, 2, 1]
    assert predictions.correct.tolist() == [True, False, False]
    assert predictions.confidence.tolist() == pytest.approx([0.7, 0.7, 0.5])


def not_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1 but not really")


def other_table(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": [1]}), path)


def unknown_class(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"row": [1], "true": ["zebra"], "p_cat": [1.0]}), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "has no predictions for 'test'"),
        (not_parquet, "is damaged"),
        (other_table, "does not hold predictions"),
        (unknown_class, "does not hold predictions"),
    ],
)
def test_missing_or_foreign_predictions_are_named(
    run: RunDir, damage: Callable[[Path], None] | None, message: str
) -> None:
    if damage is not None:
        damage(run.predictions("test"))
    with pytest.raises(RunError, match=message) as caught:
        run.read_predictions("test")
    assert "thirtytwo evaluate" in (caught.value.fix or "")


@pytest.mark.parametrize("name", ["exp:1", "https:/x.org", os.fsdecode(b"K\xe4fer")])
def test_predictions_in_a_directory_of_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths such as exp:1/x are no addresses."""
    monkeypatch.chdir(tmp_path)
    run = RunDir.create(Path(name))
    run.write_predictions("test", some_predictions())
    assert (tmp_path / name / "predictions-test.parquet").is_file()
    np.testing.assert_array_equal(run.read_predictions("test").rows, some_predictions().rows)
