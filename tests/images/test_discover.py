from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from thirtytwo.errors import DataError
from thirtytwo.images.discover import IMAGE_SUFFIXES, find_images, list_images, natural_key


def test_find_images_sorts_naturally_and_lists_junk(tmp_path):
    for name in ("cat10.png", "cat2.png", "Cat1.PNG", "Thumbs.db", ".hidden.png", "notes.txt", "deep/er/x.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found, skipped = find_images([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "Cat1.PNG", "cat2.png", "cat10.png", "deep/er/x.webp",
    ]  # fmt: skip
    assert {path.name for path, _ in skipped} == {"Thumbs.db", ".hidden.png", "notes.txt"}
    assert all(reason for _, reason in skipped)


def test_find_images_takes_files_globs_and_folders_once(tmp_path):
    for name in ("a.png", "b.jpg", "c.txt", "odd[1].png"):
        (tmp_path / name).write_bytes(b"x")
    found, _ = find_images(
        [tmp_path / "b.jpg", str(tmp_path / "*.*"), tmp_path, tmp_path / "c.txt", tmp_path / "gone.png"]
    )
    assert [path.name for path in found] == ["b.jpg", "a.png", "odd[1].png", "c.txt", "gone.png"]
    assert [path.name for path in find_images([tmp_path / "odd[1].png"])[0]] == ["odd[1].png"]


def test_find_images_follows_links_but_not_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"x")
    (tmp_path / "set").mkdir()
    try:
        (tmp_path / "set" / "linked").symlink_to(tmp_path / "real", target_is_directory=True)
        (tmp_path / "set" / "round").symlink_to(tmp_path / "set", target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert [path.name for path in find_images([tmp_path / "set"])[0]] == ["a.png"]


@pytest.mark.parametrize("arguments", [["*.bmp"], ["."], []])
def test_finding_nothing_is_an_error(arguments, tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"x")
    with pytest.raises(DataError):
        find_images([tmp_path / argument for argument in arguments])


def test_an_empty_folder_is_not_counted_as_skipped(tmp_path: Path) -> None:
    for name in ("empty", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("x")
    with pytest.raises(DataError) as error:
        find_images([tmp_path / "empty"])
    assert "skipped" not in error.value.message
    with pytest.raises(DataError, match="skipped: 1"):
        find_images([tmp_path / "empty", tmp_path / "notes"])


def test_natural_key_orders_numbers():
    assert sorted(["b", "a10", "a9", "A1"], key=natural_key) == ["A1", "a9", "a10", "b"]


def test_natural_key_keeps_the_order_that_label_indices_are_in():
    names = ["À", "B", "x²", "x2", "x10", "Z", "a", "A", "001", "01", "1", "café", "cafz", "ß", "ss"]
    expected = ["001", "01", "1", "A", "a", "B", "cafz", "café", "ss", "ß", "x2", "x10", "x²", "Z", "À"]
    assert sorted(names, key=natural_key) == expected


def test_suffixes_are_lower_case():
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_a_glob_searches_no_folder_twice(tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(12)]
    for name in names:
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
        for other in names:
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
        (tmp_path / name / "up").symlink_to(tmp_path)
    everywhere = [tmp_path / name / "a.png" for name in sorted(names, key=natural_key)]
    assert find_images([f"{tmp_path}/**/*.png"])[0] == everywhere
    assert find_images([f"{tmp_path}/**/**/a.*"])[0] == everywhere
    assert find_images([f"{tmp_path}/**"])[0] == everywhere
    assert find_images([tmp_path])[0] == everywhere
    one, skipped = list_images(tmp_path / "d0", named=False)
    assert one[0] == tmp_path / "d0" / "a.png"
    assert len(one) == 12, "the others are found through links, each once"
    assert (tmp_path / "d0" / "up", "link to a folder above it") in skipped


def test_a_recursive_glob_is_relative_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "side").mkdir(parents=True)
    for name in ("a.png", "in/b.png", "in/side/c.png"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for pattern in ("**/*.png", "./**/*.png"):
        assert [path.as_posix() for path in find_images([pattern])[0]] == ["a.png", "in/b.png", "in/side/c.png"]
    assert [path.as_posix() for path in find_images(["in/**/c.*"])[0]] == ["in/side/c.png"]
