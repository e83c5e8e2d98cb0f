"""`thirtytwo explain`: files, output and errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.cli.explain import _write_explanations, overlay_names
from thirtytwo.cli.main import run_command
from thirtytwo.inference.library import BUNDLED

Output = tuple[int, str, str]
Explain = Callable[..., Output]


@pytest.fixture
def explain(
    colour_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Explain:
    """Run `thirtytwo explain … --model` in an empty directory; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, model: Path | None = colour_model) -> Output:
        chosen = ["--model", str(model)] if model else []
        code = run_command(["explain", *map(str, arguments), *chosen])
        return (code, *capsys.readouterr())

    return run


def test_overlays_sheet_scores_and_table(explain: Explain, image_folder: Path, tmp_path: Path) -> None:
    code, out, err = explain(image_folder, "--out", tmp_path / "out")
    assert code == 0, err
    assert "Method: cam (" in err
    assert "Thumbs.db" in err
    assert "notes.txt" in err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {*("red.png", "green.png", "blue.png", "grey.png", "contact-sheet.png", "explanations.json")}
    entries = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert [(entry["class"], entry["known"], entry["overlay"]) for entry in entries][:2] == [
        ("blue", True, "blue.png"),
        ("green", True, "green.png"),
    ]
    assert not next(entry["known"] for entry in entries if entry["overlay"] == "grey.png")
    for entry in entries:
        assert entry["method"] == "cam"
        assert -1 <= entry["better_than_random_by"] <= 1
        with Image.open(tmp_path / "out" / entry["overlay"]) as image:
            assert min(image.size) >= 256
            assert image.mode == "RGB"
            assert image.width / image.height == pytest.approx(entry["width"] / entry["height"], rel=0.01)
    lines = out.splitlines()
    assert lines[0].split() == [
        *(
            "file",
            "class",
            "confidence",
            "method",
            "deletion",
            "insertion",
            "random",
            "insertion",
            "−",
            "deletion",
            "random",
            "maps",
            "outscored",
        )
    ]
    assert "grey (unknown)" not in out
    assert "(unknown)" in out
    assert lines[-1] == str(tmp_path / "out")


def test_heatmap_is_on_the_object(explain: Explain, tmp_path: Path) -> None:
    """The colour model's heatmap is the brightest channel: the bright corner must be the hot one."""
    pixels = np.full((8, 8, 3), 20, dtype=np.uint8)
    pixels[:4, 4:, 0] = 250
    Image.fromarray(pixels).save(tmp_path / "corner.png")
    code, _, err = explain(tmp_path / "corner.png", "--out", "out", "--no-score")
    assert code == 0, err
    drawn = np.asarray(Image.open(tmp_path / "out" / "corner.png")).astype(int)
    assert drawn.shape == (256, 256, 3)
    hot, cold = drawn[10:100, 150:240].mean(axis=(0, 1)), drawn[150:240, 10:100].mean(axis=(0, 1))
    assert (hot[:2] > 150).all(), "yellow"
    assert (cold < 40).all(), "black"
    assert not (tmp_path / "out" / "contact-sheet.png").exists(), "one image needs no sheet"
    (entry,) = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert "deletion" not in entry


def test_occlusion_of_a_class(explain: Explain, image_folder: Path) -> None:
    code, out, err = explain(image_folder / "red.png", "--class", "green", "--no-score")
    assert code == 0, err
    assert "Method: occlusion" in err
    assert out.splitlines()[1].split()[1] == "green"
    assert out.splitlines()[-1] == "explained"


def test_nothing_is_overwritten(explain: Explain, image_folder: Path, tmp_path: Path) -> None:
    first, again = (explain(image_folder / "red.png", "--no-score")[1].splitlines()[-1] for _ in range(2))
    assert (first, again) == ("explained", "explained-2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "red.png").write_text("mine")
    code, out, err = explain(image_folder / "red.png", "--out", "mine")
    assert (code, out) == (2, "")
    assert "mine" in err
    assert "--force" in err
    assert (tmp_path / "mine" / "red.png").read_text() == "mine"
    code, _, err = explain(image_folder / "red.png", "--out", "mine", "--force", "--no-score")
    assert code == 0, err
    assert (tmp_path / "mine" / "red.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = explain(image_folder / "red.png", "--out", image_folder / "notes.txt")
    assert code == 2
    assert "--out" in err
    assert "notes.txt" in err


def test_input_image_is_never_overwritten(explain: Explain, image_folder: Path) -> None:
    """Overlays have the names of their images: with --force they would overwrite images in the same folder."""
    before = (image_folder / "red.png").read_bytes()
    code, _, err = explain(image_folder, "--out", image_folder, "--force")
    assert code == 2
    assert str(image_folder) in err
    assert "--out" in err
    assert (image_folder / "red.png").read_bytes() == before


def test_the_contact_sheet_overwrites_no_input_image(explain: Explain, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    sheet = Path(shutil.copy(image_folder / "blue.png", tmp_path / "mine" / "contact-sheet.png"))
    before = sheet.read_bytes()
    code, _, err = explain(image_folder / "red.png", sheet, "--out", "mine", "--force", "--no-score")
    assert code == 2
    assert str(Path("mine") / "contact-sheet.png") in err
    assert sheet.read_bytes() == before


def test_unreadable_among_readable(explain: Explain, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    code, out, err = explain(
        image_folder / "red.png", "bad.png", image_folder / "blue.png", "--out", "out", "--no-score"
    )
    assert code == 2, "after the readable ones were explained"
    assert out.splitlines()[-1] == "out"
    assert "bad.png" in out
    assert "bad.png" in err
    assert "1 of 3 files" in err
    entries = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert list(entries[1]) == ["file", "error"]
    assert [entry.get("class") for entry in entries] == ["red", None, "blue"]


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--method", "gradcan"], ["'gradcan'", "'gradcam'"]),
        (["--method", "gradcam"], ["gradcam"]),
        (["--method", "cam", "--class", "red"], ["cam"]),
        (["--class", "greem"], ["'greem'", "'green'"]),
        (["--model", "gone.onnx"], ["'gone.onnx'"]),
    ],
)
def test_bad_settings(
    explain: Explain, image_folder: Path, tmp_path: Path, arguments: list[str], values: list[str]
) -> None:
    own = {"model": None} if "--model" in arguments else {}
    code, out, err = explain(image_folder / "red.png", *arguments, **own)
    assert (code, out) == (2, "")
    assert all(value in err for value in values), err
    assert err.count("\n") == 1
    assert not (tmp_path / "explained").exists()


@pytest.mark.parametrize("arguments", [["--class", "zebra"], ["--method", "gradcam"]])
def test_a_bundled_model_is_named_as_the_option_takes_it(
    explain: Explain, image_folder: Path, arguments: list[str]
) -> None:
    code, _, err = explain(image_folder / "red.png", "--model", "cifar10-tiny", *arguments, model=None)
    assert code == 2
    assert "cifar10-tiny" in err
    assert str(BUNDLED) not in err


def test_no_images(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = explain("empty")
    assert (code, out) == (2, "")
    assert "empty" in err
    (tmp_path / "bad.png").write_bytes(b"")
    code, out, err = explain("bad.png", "--method", "cam")
    assert code == 2
    assert err.count("\n") == 1
    assert not (tmp_path / "explained" / "contact-sheet.png").exists()


def test_names_of_overlays(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("cat/1.png", "cat/1.jpg", "dog/deep/1.png", "contact-sheet.png")]
    assert list(overlay_names(files).values()) == [
        *("cat-1.png", "cat-1-2.png", "dog-deep-1.png", "contact-sheet-2.png")
    ]
    assert list(overlay_names(files[:1]).values()) == ["1.png"]


@pytest.mark.slow
def test_a_model_file_needs_no_pytorch(colour_model: Path, image_folder: Path, tmp_path: Path) -> None:
    code = "import json, sys; from thirtytwo.cli.main import run_command; code = run_command(sys.argv[1:]); "
    code += "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    arguments = ["explain", image_folder, "--model", colour_model, "--out", tmp_path / "out"]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    exit_code, modules = json.loads(done.stdout.splitlines()[-1])
    assert exit_code == 0, done.stderr
    assert not set(modules) & {"torch", "captum", "matplotlib", "sklearn", "scipy", "pandas", "onnx"}


@pytest.mark.parametrize(
    "names",
    [
        ["/".join(["d" * 100] * 3) + "/a.png", "/".join(["d" * 100] * 3) + "/b.png", "c.png"],
        ["猫" * 80 + ".png", "猫" * 80 + "猫.png", "c.png"],
        ["x" * 251 + ".png", "c.png"],
    ],
    ids=["deep", "244 bytes of CJK", "255 bytes"],
)
def test_names_that_become_too_long_are_shortened(names: list[str], explain: Explain, tmp_path: Path) -> None:
    for number, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 5, 5)).save(tmp_path / "in" / name)
    code, _, err = explain(tmp_path / "in", "--out", tmp_path / "out", "--no-score")
    assert code == 0, err
    records = json.loads((tmp_path / "out" / "explanations.json").read_text())
    overlays = {record["overlay"] for record in records}
    assert len(overlays) == len(names)
    assert all((tmp_path / "out" / overlay).is_file() and overlay.endswith(".png") for overlay in overlays)


def test_links_in_circles_are_named(explain: Explain, image_folder: Path) -> None:
    (image_folder / "circle.png").symlink_to("circle.png")
    (image_folder / "nothing").symlink_to("gone")
    code, _, error = explain(image_folder, "--out", image_folder.parent / "out")
    assert code == 2
    assert "circle.png cannot be read" in error
    assert "nothing: broken link" in error


def test_heatmaps_of_many_images_are_not_kept(tmp_path: Path) -> None:
    from thirtytwo.explain import Explanation

    pixels, heats = np.zeros((8, 8, 3), dtype=np.uint8), list[weakref.ref[np.ndarray]]()
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file in files:
        Image.fromarray(pixels).save(file)

    def explained() -> Iterator[Explanation]:
        for file in files:
            assert all(heat() is None for heat in heats[:-1]), "the last one is a variable of the caller"
            heat = np.zeros((8, 8), dtype=np.float32)
            heats.append(weakref.ref(heat))
            yield Explanation(str(file), 8, 8, "a", 0.5, "a", True, "cam", pixels, heat, None)
            del heat

    names = {file: f"heat-{file.name}" for file in files}
    rows, problems = _write_explanations(files, explained(), tmp_path, names, "crop", score=False)
    assert [row[0] for row in rows] == [str(file) for file in files]
    assert problems == []
