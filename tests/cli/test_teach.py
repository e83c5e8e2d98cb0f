"""`thirtytwo teach`: a folder with one subfolder per class → a model file that predicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.inference.classifier import Classifier

Output = tuple[int, str, str]
COLORS = {"grape": (130, 30, 180), "sun": (240, 200, 30), "sea": (20, 60, 200)}


def paint(
    folder: Path, count: int, color: tuple[int, int, int], size: tuple[int, int] = (12, 10), **changes: str
) -> Path:
    """Write images of about that color, as PNG, or in the mode `mode`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(color))
    for number in range(count):
        pixels = np.clip(np.array(color) + random.integers(-25, 26, (*size[::-1], 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert(changes.get("mode", "RGB")).save(folder / f"{number}.png")
    return folder


def classes(root: Path, count: int = 6, names: tuple[str, ...] = ("grape", "sun")) -> Path:
    for name in names:
        paint(root / name, count, COLORS[name])
    return root


@pytest.fixture
def teach(colour_model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    """Run `thirtytwo teach … --base`; return exit code, stdout and stderr."""

    def run(*arguments: str | Path, base: str | Path = colour_model) -> Output:
        code = run_command(["teach", *map(str, arguments), "--base", str(base)])
        return (code, *capsys.readouterr())

    return run


def test_a_folder_becomes_a_model_that_predicts(
    teach: Callable[..., Output], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "model.onnx"
    code, printed, log = teach(classes(tmp_path / "images"), "--out", out)
    assert code == 0
    assert printed.splitlines()[-1] == str(out)
    assert "Expected accuracy: 100.0 %, 95 % interval" in printed
    assert "Verdict: fair; guessing would be right in 50 %" in printed
    assert "Next: Add images of “grape”: it has 6 images." in printed
    assert "Base:" in log
    info = Classifier(out, threads=1).info
    assert info.classes == ("grape", "sun")
    assert info.few_shot is not None
    assert (info.few_shot.counts, info.few_shot.accuracy, info.few_shot.folds) == ((6, 6), 1.0, 6)
    new = paint(tmp_path / "new", 1, (130, 30, 180), (40, 30)) / "0.png"
    assert run_command(["predict", str(new), "--model", str(out), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["top"] == "grape"


def test_names_that_are_almost_the_same_are_named(teach: Callable[..., Output], tmp_path: Path) -> None:
    paint(classes(tmp_path / "images") / "Grape", 6, (200, 20, 20))
    code, _, log = teach(tmp_path / "images", "--out", tmp_path / "model.onnx")
    assert code == 0
    assert "The classes 'Grape' and 'grape' have almost the same name. If they are the same class" in log


def test_the_same_seed_gives_the_same_file(teach: Callable[..., Output], tmp_path: Path) -> None:
    folder = classes(tmp_path / "images")
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file in files:
        assert teach(folder, "--out", file, "--seed", "3")[0] == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_file_is_overwritten_only_with_force(teach: Callable[..., Output], tmp_path: Path) -> None:
    folder, out = classes(tmp_path / "images"), tmp_path / "model.onnx"
    out.write_text("mine")
    code, _, log = teach(folder, "--out", out)
    assert code == 2
    assert "--force" in log
    assert out.read_text() == "mine"
    assert teach(folder, "--out", out, "--force")[0] == 0
    assert Classifier(out, threads=1).classes == ("grape", "sun")


def test_a_suffix_of_another_format_is_refused(teach: Callable[..., Output], tmp_path: Path) -> None:
    code, _, log = teach(classes(tmp_path / "images"), "--out", tmp_path / "answers.json")
    assert code == 2
    assert ".onnx" in log
    assert not (tmp_path / "answers.json").exists()


def one_class(root: Path) -> None:
    classes(root, names=("grape",))


def empty_class(root: Path) -> None:
    classes(root)
    (root / "sea").mkdir()


def unreadable_class(root: Path) -> None:
    classes(root)
    (root / "sea").mkdir()
    (root / "sea" / "a.png").write_bytes(b"\x89PNG")


def many_classes(root: Path) -> None:
    for number in range(20_000):
        (root / f"c{number}").mkdir(parents=True)
        (root / f"c{number}" / "a.png").write_bytes(b"x")


def many_images(root: Path) -> None:
    classes(root)
    for number in range(300):
        (root / "sun" / f"x{number}.png").write_bytes(b"x")


def loose_images(root: Path) -> None:
    paint(root, 3, COLORS["sun"])


def nothing(root: Path) -> None:
    pass


def a_file(root: Path) -> None:
    root.write_text("x")


def same_image(root: Path) -> None:
    classes(root)
    (root / "sun" / "same.png").write_bytes((root / "grape" / "0.png").read_bytes())


@pytest.mark.parametrize(
    ("prepare", "parts"),
    [
        (one_class, ("1", "2")),
        (empty_class, ("'sea'", "without images")),
        (unreadable_class, ("'sea'", "a.png")),
        pytest.param(many_classes, ("20,000", "thirtytwo train"), marks=pytest.mark.long),
        (many_images, ("'sun'", "306", "thirtytwo train")),
        (loose_images, ("class folder",)),
        (nothing, ("does not exist",)),
        (a_file, ("is a file",)),
        (same_image, ("grape/0.png and ", "sun/same.png")),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_invalid_folders(
    teach: Callable[..., Output], tmp_path: Path, prepare: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
    root, out = tmp_path / "images", tmp_path / "model.onnx"
    prepare(root)
    code, printed, log = teach(root, "--out", out)
    assert (code, printed) == (2, "")
    assert log.count("\n") == 1 + log.startswith("Base")
    assert all(part in log for part in parts), log
    assert not out.exists()


def test_an_unknown_base_suggests_close_names(teach: Callable[..., Output], tmp_path: Path) -> None:
    code, _, log = teach(classes(tmp_path / "images"), "--out", tmp_path / "model.onnx", base="imagnet")
    assert code == 2
    assert "'imagenet'" in log


@pytest.mark.parametrize("arguments", [("--views", "0"), ("--views", "99"), ("--out", ".")])
def test_invalid_options(teach: Callable[..., Output], tmp_path: Path, arguments: tuple[str, str]) -> None:
    code, _, log = teach(classes(tmp_path / "images"), "--out", tmp_path / "model.onnx", *arguments)
    assert code == 2
    assert log


def single_images(root: Path) -> None:
    classes(root, 1)


def one_single_image(root: Path) -> None:
    classes(root)
    paint(root / "sea", 1, COLORS["sea"])


def gray(root: Path) -> None:
    paint(root / "dark", 6, (40, 40, 40), mode="L")
    paint(root / "light", 6, (220, 220, 220), mode="L")


def panoramas(root: Path) -> None:
    classes(root)
    paint(root / "sea", 2, COLORS["sea"], (9000, 20))


def tiny(root: Path) -> None:
    classes(root)
    paint(root / "sea", 3, COLORS["sea"], (2, 2))


def some_unreadable(root: Path) -> None:
    classes(root)
    (root / "sun" / "broken.png").write_bytes(b"\x89PNG")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (single_images, "cannot be estimated"),
        (one_single_image, "cannot be estimated"),
        (gray, "95 % interval"),
        (panoramas, "95 % interval"),
        (tiny, "95 % interval"),
        (some_unreadable, "broken.png"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_unusual_folders(
    teach: Callable[..., Output], tmp_path: Path, prepare: Callable[[Path], None], said: str
) -> None:
    root, out = tmp_path / "images", tmp_path / "model.onnx"
    prepare(root)
    code, printed, log = teach(root, "--out", out)
    assert code == 0, log
    assert said in printed + log
    assert len(Classifier(out, threads=1).classes) == len(list(root.iterdir()))


@pytest.mark.slow
def test_it_imports_no_pytorch(colour_model: Path, tmp_path: Path) -> None:
    arguments = [
        "teach",
        str(classes(tmp_path / "images")),
        "--out",
        str(tmp_path / "m.onnx"),
        "--base",
        str(colour_model),
    ]
    code = (
        "import sys; from thirtytwo.cli.main import run_command; "
        f"code = run_command({arguments!r}); "
        "sys.exit(code or bool({'torch', 'scipy', 'sklearn', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode == 0


def test_a_class_whose_only_image_is_damaged_says_so(teach: Callable[..., Output], tmp_path: Path) -> None:
    folder = classes(tmp_path / "images")
    (folder / "sea").mkdir()
    (folder / "sea" / "0.png").write_bytes(b"no image")
    code, _, log = teach(folder, "--out", tmp_path / "model.onnx")
    assert code == 2
    assert "The only image of class 'sea' cannot be read:" in log


def test_copies_within_a_class_are_counted(teach: Callable[..., Output], tmp_path: Path) -> None:
    folder = classes(tmp_path / "images")
    for name in ("a.png", "b.png"):
        (folder / "sun" / name).write_bytes((folder / "sun" / "0.png").read_bytes())
    code, _, log = teach(folder, "--out", tmp_path / "model.onnx")
    assert code == 0
    assert "Left out images that are copies of others of their class: 2." in log


def test_an_image_is_never_overwritten(teach: Callable[..., Output], tmp_path: Path) -> None:
    image = classes(tmp_path / "images") / "sun" / "0"
    image.write_bytes((image.parent / "0.png").read_bytes())
    before = image.read_bytes()
    code, _, log = teach(tmp_path / "images", "--out", image, "--force")
    assert (code, image.read_bytes()) == (2, before)
    assert str(image) in log
