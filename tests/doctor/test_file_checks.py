"""Checks of what files state: suffix, mode and orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.data.load import load_dataset
from thirtytwo.doctor import Diagnosis, Finding, Subject, diagnose
from thirtytwo.errors import ImageError
from thirtytwo.images.header import read_facts


def photo(seed: int, width: int = 24, height: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with 12 JPEGs each."""
    root = tmp_path / "set"
    for label in range(2):
        (root / "ab"[label]).mkdir(parents=True)
        for number in range(12):
            photo(12 * label + number).save(root / f"{'ab'[label]}/{number}.jpg")
    return root


def found(root: Path, code: str) -> tuple[Finding, ...]:
    return diagnose(str(root), only=[code], cache=False).findings


def files(root: Path, code: str) -> list[str]:
    diagnosis: Diagnosis = diagnose(str(root), only=[code], cache=False)
    assert diagnosis.subject is not None
    return sorted(
        diagnosis.subject.name_of(place) for one in diagnosis.findings for group in one.groups for place in group
    )


@pytest.mark.parametrize("code", ["T203", "T204", "T205"])
def test_usual_files_have_no_findings(folder: Path, code: str) -> None:
    assert found(folder, code) == ()


def test_wrong_suffix(folder: Path) -> None:
    photo(90).save(folder / "a/3.jpg", "PNG")
    photo(91).save(folder / "b/photo.JPEG", "JPEG")
    photo(92).save(folder / "b/other.img", "PNG")
    assert files(folder, "T203") == ["a/3.jpg"]
    (finding,) = found(folder, "T203")
    assert finding.notes == (".jpg is PNG",)
    assert "1 of 26 files has the suffix of another format (1 .jpg that is PNG)" in finding.what
    assert finding.severity == "note"


@pytest.mark.parametrize(
    ("mode", "name", "words"),
    [
        ("CMYK", "odd.jpg", "CMYK"),
        ("I;16", "odd.png", "8 bits per pixel, and is scaled to 8"),
        ("RGBA", "odd.png", "is put on white"),
        ("L", "odd.jpg", "gray"),
        ("1", "odd.png", "gray"),
    ],
)
def test_unusual_mode(folder: Path, mode: str, name: str, words: str) -> None:
    if mode == "I;16":
        Image.fromarray(np.arange(384, dtype=np.uint16).reshape(16, 24) * 100).save(folder / "a" / name)
    else:
        photo(90).convert(mode).save(folder / "a" / name)
    assert files(folder, "T204") == [f"a/{name}"]
    (finding,) = found(folder, "T204")
    assert words in finding.what
    assert "1 of 25 images has" in finding.what or "1 of 25 images is" in finding.what
    assert " are " not in finding.what


def test_palettes_are_unusual_only_if_transparent(folder: Path) -> None:
    photo(90).quantize(8).save(folder / "a/plain.png")
    photo(91).quantize(8).save(folder / "a/clear.png", transparency=0)
    assert files(folder, "T204") == ["a/clear.png"]


def test_a_mode_of_most_images_is_usual(folder: Path) -> None:
    for file in folder.rglob("*.jpg"):
        Image.open(file).convert("L").save(file)
    assert found(folder, "T204") == ()


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp"])
def test_rotated(folder: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(90).save(folder / "b" / name, exif=exif)
    assert files(folder, "T205") == [f"b/{name}"]
    assert found(folder, "T205")[0].notes == ("by 90°",)
    assert " images is rotated" in found(folder, "T205")[0].what
    facts = read_facts(folder / "b" / name)
    assert (facts.width, facts.height, facts.upright) == (24, 16, (16, 24))


def test_facts_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "one.jpg"
    photo(1).save(file, quality=50, progressive=True)
    facts = read_facts(file)
    assert (facts.format, facts.mode, facts.orientation, facts.bytes) == ("JPEG", "RGB", 1, file.stat().st_size)
    assert facts.progressive
    assert not facts.exif
    photo(1).save(tmp_path / "better.jpg", quality=95)
    assert read_facts(tmp_path / "better.jpg").quantization < facts.quantization
    photo(1).save(tmp_path / "large.png")
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "100")
    with pytest.raises(ImageError, match="more than the limit"):
        read_facts(tmp_path / "large.png")


def test_data_without_files_has_no_facts(folder: Path) -> None:
    assert Subject(load_dataset(str(folder), cache=False)).file_facts is None
    digits = Subject(load_dataset("digits", cache=False), spec="digits")
    assert digits.file_facts is None
    assert digits.placed_facts == []


def test_facts_of_split_folders(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for split in ("train", "test"):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for number in range(3):
                photo(number + 7 * len(split), 10 + len(split), 9).save(root / split / label / f"{number}.png")
    subject = Subject(load_dataset(str(root), cache=False), spec=str(root))
    assert subject.file_facts is not None
    widths = {name: {facts.width if facts else 0 for facts in every} for name, every in subject.file_facts.items()}
    assert widths == {"train": {15}, "test": {14}}
