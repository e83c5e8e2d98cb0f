"""Near-duplicates that are kept on one side of a split."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import thirtytwo
from thirtytwo.config.recipe import DataSettings
from thirtytwo.data.folds import divide_or_fold
from thirtytwo.data.load import load_dataset
from thirtytwo.doctor import together as module
from thirtytwo.doctor.together import kept_together

SIDE = 96


def photograph(seed: int) -> Image.Image:
    """A smooth image unlike those of other seeds."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve photographs of each of two classes; the first four of each have three near-duplicates."""
    root = tmp_path / "photographs"
    for label in range(2):
        for number in range(12):
            image, name = photograph(100 * label + number), f"class {label}/{number:02}"
            save(image, root / f"{name}.png")
            if number < 4:
                save(image, root / f"{name}b.jpg", quality=70)
                save(ImageEnhance.Brightness(image).enhance(1.1), root / f"{name}c.png")
                save(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), root / f"{name}d.png")
    return root


def scenes(files: tuple[str, ...] | None) -> set[str]:
    assert files is not None
    return {file[: len("class 0/00")] for file in files}


@pytest.mark.parametrize("seed", range(6))
def test_near_duplicates_of_photographs_are_never_divided(folder: Path, seed: int) -> None:
    settings = DataSettings(split_seed=seed)
    kept = kept_together(str(folder), settings)
    assert kept.value == "near-duplicates"
    assert kept.together is not None
    assert kept.together.sizes.tolist() == [4] * 8
    (choice,) = kept.choices
    assert "8 groups" in choice.value
    data = load_dataset(str(folder), seed=seed, together=kept.together)
    assert data.test is not None
    assert not scenes(data.train.files) & scenes(data.test.files)
    assert (data.test.counts > 0).all()
    plain = load_dataset(str(folder), seed=seed)
    assert plain.test is not None
    alone = {file for file in plain.test.files or () if file[8:10] >= "04"}
    assert alone == {file for file in data.test.files or () if file[8:10] >= "04"}


@pytest.mark.parametrize("seed", range(3))
def test_the_public_function_cuts_the_test_split_of_training(folder: Path, seed: int, tiny: SimpleNamespace) -> None:
    pytest.importorskip("torch")
    from thirtytwo.workflows.prepare import prepare

    trained = prepare(str(folder), "fast", {**tiny.overrides, "data.split_seed": seed}, "cpu", None).parts.test
    data = thirtytwo.load_dataset(folder, seed=seed)
    assert data.test is not None
    assert set(data.test.files or ()) == set(trained.files or ())
    copies = thirtytwo.load_dataset(folder, seed=seed, keep_together="copies")
    assert copies.test is not None
    assert scenes(copies.test.files) & scenes(copies.train.files)
    whole = thirtytwo.load_dataset(folder, whole=True)
    assert whole.test is None
    assert len(whole.train) == len(data.train) + len(data.test)


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_near_duplicates_are_in_one_fold(folder: Path, fold: int, tiny) -> None:
    recipe = tiny.recipe(data__folds=3, data__fold=fold)
    kept = kept_together(str(folder), recipe.data)
    parts = divide_or_fold(load_dataset(str(folder), together=kept.together, split_test=False), recipe)
    assert parts.val is not None
    found = [scenes(part.files) for part in (parts.train, parts.val, parts.test)]
    assert sum(map(len, found)) == len(set.union(*found)) == 24


def test_second_search_is_read_from_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kept_together(str(folder), DataSettings()).together
    monkeypatch.setattr(module, "find_pairs", None)
    again = kept_together(str(folder), DataSettings(split_seed=5)).together
    assert first is not None
    assert again is not None
    assert np.array_equal(first.groups, again.groups)


def test_groups_do_not_depend_on_the_image_size(folder: Path) -> None:
    kept = kept_together(str(folder), DataSettings(image_size=64)).together
    assert kept is not None
    small, large = (load_dataset(str(folder), image_size=size, together=kept) for size in (16, 64))
    assert small.train.files == large.train.files


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"group_by": r"/(\d+)"}, "group_by"),
        ({"keep_together": "copies"}, None),
    ],
)
def test_auto_keeps_only_copies_together(folder: Path, changes: dict[str, str], reason: str | None) -> None:
    kept = kept_together(str(folder), DataSettings.model_validate(changes))
    assert (kept.value, kept.together) == ("copies", None)
    assert [reason in choice.reason for choice in kept.choices] == ([] if reason is None else [True])


def test_known_data_and_small_images_are_split_as_before(tiny, tmp_path: Path) -> None:
    for spec in ("digits", str(tiny.folder(tmp_path / "small", 12))):
        assert kept_together(spec, DataSettings()).value == "copies"


def test_near_duplicates_are_found_on_request_in_any_data() -> None:
    kept = kept_together("digits", DataSettings(keep_together="near-duplicates"))
    assert kept.value == "near-duplicates"


def test_data_with_its_own_splits_is_left_as_it_is(folder: Path) -> None:
    folder.rename(folder.with_name("train"))
    for split in ("val", "test"):
        for label in range(2):
            save(photograph(500 + label), folder.with_name(split) / f"class {label}/x.png")
    assert kept_together(str(folder.parent), DataSettings()).value == "copies"


def test_class_of_near_duplicates_alone_is_divided_as_before(tmp_path: Path) -> None:
    for number in range(8):
        save(photograph(number), tmp_path / f"many/{number}.png")
        save(photograph(99), tmp_path / f"one/{number}.jpg", quality=60 + 4 * number)
    kept = kept_together(str(tmp_path), DataSettings())
    assert kept.value == "copies"
    assert "too few" in kept.choices[0].reason
    assert kept_together(str(tmp_path), DataSettings(keep_together="near-duplicates")).value == "near-duplicates"


def test_more_images_than_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    assert kept_together(str(folder), DataSettings()).value == "copies"


def test_data_that_cannot_be_read_is_reported_by_loading(folder: Path) -> None:
    (folder / "class 0" / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert kept_together(str(folder), DataSettings()).value == "copies"
    assert kept_together(str(folder), DataSettings(skip_unreadable=True)).value == "near-duplicates"


@pytest.mark.slow
def test_share_that_large_groups_change_is_noted(tmp_path: Path) -> None:
    """Bursts of seven photographs, of which the seed puts many into test."""
    for label in range(2):
        for number in range(6):
            image = photograph(100 * label + number)
            for copy in range(7):
                save(
                    ImageEnhance.Brightness(image).enhance(1 + copy / 50), tmp_path / f"set/{label}/{number}-{copy}.png"
                )
    notes = []
    for seed in range(8):
        kept = kept_together(str(tmp_path / "set"), DataSettings(split_seed=seed))
        data = load_dataset(str(tmp_path / "set"), seed=seed, together=kept.together)
        assert data.test is not None
        share = len(data.test) / 84
        remarks = [note for note in data.warnings if note.startswith("test has")]
        assert bool(remarks) == (not 0.2 / 1.5 < share < 0.2 * 1.5)
        notes += remarks
    assert notes
