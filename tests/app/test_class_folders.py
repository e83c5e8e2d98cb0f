"""Classes from relative paths of a folder or ZIP file, and ZIP files that are damaged, locked or too large."""

from __future__ import annotations

import io
import zipfile

import pytest

pytest.importorskip("streamlit")

from thirtytwo.app.class_folders import group_by_class, open_zip, read_entry, zip_entries
from thirtytwo.errors import InputError

Classes = dict[str, list[str]]


@pytest.mark.parametrize(
    ("paths", "expected", "left_out"),
    [
        (["pets/cat/2.jpg", "pets/cat/10.jpg", "pets/dog/1.png"], {"cat": ["2.jpg", "10.jpg"], "dog": ["1.png"]}, 0),
        (["cat/1.jpg", "dog/1.jpg"], {"cat": ["1.jpg"], "dog": ["1.jpg"]}, 0),
        (["a/b/pets/cat/1.jpg", "a/b/pets/dog/1.jpg"], {"cat": ["1.jpg"], "dog": ["1.jpg"]}, 0),
        (["cat/1.jpg", "cat/2.HEIC"], {"cat": ["1.jpg", "2.HEIC"]}, 0),  # one class
        (["pets\\cat\\1.jpg", "pets\\dog\\1.jpg"], {"cat": ["1.jpg"], "dog": ["1.jpg"]}, 0),
        (["cat/day 1/1.jpg", "dog/1.jpg"], {"cat": ["1.jpg"], "dog": ["1.jpg"]}, 0),
        (["pets/loose.jpg", "pets/cat/1.jpg", "pets/dog/1.jpg"], {"cat": ["1.jpg"], "dog": ["1.jpg"]}, 1),
        (["cat/1.jpg", "dog/1.jpg", "dog/notes.txt", "readme.md"], {"cat": ["1.jpg"], "dog": ["1.jpg"]}, 1),
        (["x/train/cat/1.jpg", "x/train/dog/1.jpg", "x/test/cat/9.jpg"], {"cat": ["1.jpg"], "dog": ["1.jpg"]}, 1),
        (["cat/1.jpg", "__MACOSX/cat/._1.jpg", "cat/.DS_Store", ".git/a.jpg", "dog/Thumbs.db"], {"cat": ["1.jpg"]}, 0),
        (["../../etc/1.jpg", "/etc/2.jpg"], {"etc": ["1.jpg", "2.jpg"]}, 0),
        ([" my  cat /1.jpg", "dog/1.jpg"], {"dog": ["1.jpg"], "my cat": ["1.jpg"]}, 0),
    ],
)
def test_folders_are_classes(paths: list[str], expected: Classes, left_out: int) -> None:
    found = group_by_class((path, path) for path in paths)
    names = {name: [file for file, _ in files] for name, files in found.classes.items()}
    assert names == expected
    assert len(found.notes) == left_out, found.notes
    assert all(content.replace("\\", "/").endswith(file) for files in found.classes.values() for file, content in files)


@pytest.mark.parametrize("paths", [[], ["1.jpg", "2.jpg"], ["cat/notes.txt"], [".cat/1.jpg"]])
def test_without_images_in_folders_there_are_no_classes(paths: list[str]) -> None:
    with pytest.raises(InputError):
        group_by_class((path, path) for path in paths)


def test_a_zip_file_of_images_alone_is_one_class_as_a_folder_of_them_is() -> None:
    folder = group_by_class([("pets/1.jpg", 1), ("pets/2.jpg", 2)])
    archive = group_by_class([("1.jpg", 1), ("2.jpg", 2)], "pets")
    assert folder == archive
    assert list(group_by_class([("cat/1.jpg", 1), ("dog/1.jpg", 2), ("3.jpg", 3)], "pets").classes) == ["cat", "dog"]


def test_of_many_images_of_a_class_some_are_taken_evenly() -> None:
    found = group_by_class((f"{name}/{number}.jpg", number) for name in ("cat", "dog") for number in range(500))
    numbers = [content for _, content in found.classes["cat"]]
    assert len(numbers) == 200
    assert numbers[0] == 0
    assert 490 < numbers[-1] < 500
    assert len(found.notes) == 2


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(InputError, match="101"):
        group_by_class((f"{number}/a.jpg", number) for number in range(101))


def packed(*entries: tuple[str, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return stream


def test_a_zip_file_is_read_without_unpacking_it_to_disk() -> None:
    with open_zip(
        packed(("pets/cat/", b""), ("pets/cat/1.jpg", b"image"), ("../../x/2.jpg", b"other")), "a.zip"
    ) as archive:
        entries = dict(zip_entries(archive))
        assert list(entries) == ["pets/cat/1.jpg", "../../x/2.jpg"]
        assert read_entry(archive, entries["pets/cat/1.jpg"], 100) == b"image"


def test_an_entry_that_is_larger_than_it_may_be_is_left_out() -> None:
    with open_zip(packed(("cat/1.jpg", bytes(1_000_000))), "a.zip") as archive:
        (entry,) = [one for _, one in zip_entries(archive)]
        entry.file_size = 5  # a declared size is not trusted
        assert read_entry(archive, entry, 1000) is None


def test_a_damaged_entry_is_left_out() -> None:
    data = bytearray(packed(("cat/1.jpg", bytes(range(256)) * 40)).getvalue())
    data[60:90] = bytes(30)
    with open_zip(io.BytesIO(bytes(data)), "a.zip") as archive:
        (entry,) = [one for _, one in zip_entries(archive)]
        assert read_entry(archive, entry, 1 << 20) is None


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a ZIP file", b"Rar!\x1a\x07"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.zip"):
        open_zip(io.BytesIO(data), "a.zip")


def test_a_zip_file_with_a_password_is_refused() -> None:
    data = bytearray(packed(("cat/1.jpg", b"image")).getvalue())
    place = data.rindex(b"PK\x01\x02")
    data[place + 8] |= 1  # the flag in the directory
    with pytest.raises(InputError, match="password"):
        open_zip(io.BytesIO(bytes(data)), "a.zip")
