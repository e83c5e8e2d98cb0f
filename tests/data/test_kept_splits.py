"""Copies and exports keep the splits of their data, and incomplete ones are noticed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.data.fixes import Fix, FixPlan
from thirtytwo.data.load import load_dataset
from thirtytwo.data.repair import write_fixed
from thirtytwo.errors import DataError

EMPTY = FixPlan(())


def table(folder: Path, groups: Sequence[str] | None, labels: Sequence[str] = ("cat", "dog")) -> Path:
    """A CSV file of 40 images without a test split."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for number in range(40):
        name = f"{number:02}.png"
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / name)
        rows.append([name, labels[number % len(labels)], *([groups[number]] if groups else [])])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["file", "label", *(["group"] if groups else [])], *rows])
    return folder / "labels.csv"


def hashes_of_test(spec: Path | str) -> list[int]:
    test = load_dataset(str(spec)).test
    assert test is not None
    return sorted(test.hashes.tolist())


GROUPS = [f"g{number // 3}" if number < 30 else "" for number in range(40)]


def test_an_empty_column_of_groups_is_none(tmp_path: Path) -> None:
    assert hashes_of_test(table(tmp_path / "a", [""] * 40)) == hashes_of_test(table(tmp_path / "b", None))


@pytest.mark.parametrize(
    ("groups", "labels"),
    [(GROUPS, ("cat", "dog")), (None, ("a/b", "dog")), (GROUPS, ("a/b", "dog")), (None, ("cat", "dog"))],
    ids=["groups", "a name that is no folder", "both", "plain"],
)
def test_a_fixed_copy_has_the_same_test_images(
    groups: Sequence[str] | None, labels: Sequence[str], tmp_path: Path
) -> None:
    data = table(tmp_path / "data", groups, labels)
    write_fixed(str(data), EMPTY, tmp_path / "fixed")
    write_fixed(str(tmp_path / "fixed"), EMPTY, tmp_path / "again")
    assert hashes_of_test(tmp_path / "fixed") == hashes_of_test(data)
    assert hashes_of_test(tmp_path / "again") == hashes_of_test(data)
    assert load_dataset(str(tmp_path / "again")).classes == load_dataset(str(data)).classes


def test_names_with_spaces_around_stay(folders_with_space: Path, tmp_path: Path) -> None:
    write_fixed(str(folders_with_space), EMPTY, tmp_path / "fixed")
    assert load_dataset(str(tmp_path / "fixed")).classes == load_dataset(str(folders_with_space)).classes
    assert " lead" in load_dataset(str(tmp_path / "fixed")).classes


@pytest.fixture
def folders_with_space(tmp_path: Path) -> Path:
    return folders(tmp_path / "spaced", " lead", "iron")


def folders(root: Path, *names: str, splits: Sequence[str] = ("",)) -> Path:
    random = np.random.default_rng(1)
    for split in splits:
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    "fixes",
    [
        [Fix("move", "train", f"train/cat/{number}.png", "cat", "test") for number in range(8)],
        [Fix("relabel", "train", f"train/cat/{number}.png", "cat", "dog") for number in range(8)],
        [Fix("relabel", "train", "train/cat/0.png", "cat", "wolf")],
    ],
    ids=["moved", "relabeled", "a new class in one split"],
)
def test_a_plan_that_empties_a_class_in_a_split_is_refused(fixes: list[Fix], tmp_path: Path) -> None:
    data = folders(tmp_path / "data", "cat", "dog", splits=("train", "test"))
    with pytest.raises(DataError, match="no image of '(cat|wolf)' would be"):
        write_fixed(str(data), FixPlan(tuple(fixes)), tmp_path / "fixed", new_classes=True)
    assert not (tmp_path / "fixed").exists()


@pytest.mark.parametrize(
    ("fix", "problem"),
    [
        (Fix("move", "train", "train/cat/0.png", "cat", "train"), "already in"),
        (Fix("relabel", "train", "train/cat/0.png", "cat", "cat"), "already of the class"),
        (Fix("drop", "train", "train/cat/0.png", "cat", "dog"), "to be dropped, but"),
        (Fix("drop", "train", " train/cat/0.png"), "did you mean 'train/cat/0.png'"),
        (Fix("drop", "train", "train\\cat\\0.png"), "did you mean 'train/cat/0.png'"),
    ],
)
def test_rows_without_effect_and_misspelled_files(fix: Fix, problem: str, tmp_path: Path) -> None:
    data = folders(tmp_path / "data", "cat", "dog", splits=("train", "test"))
    with pytest.raises(DataError) as caught:
        write_fixed(str(data), FixPlan((fix,)), tmp_path / "fixed")
    assert problem in caught.value.message


def test_a_fixed_copy_has_no_findings_about_its_own_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders(tmp_path / "data", "cat", "dog")
    write_fixed(str(data), EMPTY, tmp_path / "fixed")
    run_command(["data", "doctor", str(tmp_path / "fixed")])
    assert "fixes.csv" not in capsys.readouterr().out


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_an_export_without_a_split_is_refused(format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders(tmp_path / "data", "cat", "dog", splits=("train", "test"))
    assert run_command(["data", "export", str(data), "--format", format, "--out", str(tmp_path / "out")]) == 0
    for shard in [*(tmp_path / "out").rglob("test*.tar"), *(tmp_path / "out").rglob("test*.parquet")]:
        shard.unlink()
    capsys.readouterr()
    assert run_command(["data", "show", str(tmp_path / "out")]) == 2
    assert "lacks the split 'test'" in capsys.readouterr().err


def test_a_cifar_archive_without_a_batch_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("".join(f"class {number}\n" for number in range(10)))
    for name in ("data_batch_1", "data_batch_3", "test_batch"):
        records = np.random.default_rng(0).integers(0, 10, (20, 3073), dtype=np.uint8)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    with pytest.raises(DataError, match="lacks 'data_batch_2'"):
        load_dataset(str(folder))


def test_lost_groups_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = table(tmp_path / "data", GROUPS)
    for format, said in (("folder", "groups are not kept"), ("parquet", "--group-by group"), ("csv", "")):
        assert run_command(["data", "export", str(data), "--format", format, "--out", str(tmp_path / format)]) == 0
        error = capsys.readouterr().err
        assert (said in error) if said else ("groups" not in error)
    assert hashes_of_test(tmp_path / "csv" / "labels.csv") == hashes_of_test(data)


@pytest.mark.parametrize(
    "words", [["doctor", "--html"], ["doctor", "--fix-plan"], ["show", "--html"], ["show", "--sheet"]]
)
def test_files_of_the_data_are_never_overwritten(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, csv_file = folders(tmp_path / "data", "cat", "dog"), table(tmp_path / "table", None)
    for data, output in ((folder, folder / "cat" / "0.png"), (csv_file, csv_file)):
        before = output.read_bytes()
        assert run_command(["data", words[0], str(data), words[1], str(output), "--force"]) == 2
        assert "is a file of the data" in capsys.readouterr().err
        assert output.read_bytes() == before


def test_showing_data_with_an_unreadable_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders(tmp_path / "data", "cat", "dog")
    (data / "cat" / "0.png").write_bytes(b"no image")
    assert run_command(["data", "show", str(data)]) == 0
    assert "1" in capsys.readouterr().err
    assert run_command(["data", "show", str(data), "--recipe", "fast", "--sheet", str(tmp_path / "sheet.png")]) == 0


def test_empty_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, plan = folders(tmp_path / "data", "cat", "dog"), tmp_path / "plan.csv"
    for content, said in ((b"", "is empty"), (b"action,file\n", "has no rows")):
        plan.write_bytes(content)
        shutil.rmtree(tmp_path / "fixed", ignore_errors=True)
        run_command(["data", "fix", str(data), "--plan", str(plan), "--out", str(tmp_path / "fixed")])
        assert said in capsys.readouterr().err
