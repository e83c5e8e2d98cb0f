"""The page of a data set, from every form of data and from the command line."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.data.fixes import Fix, FixPlan, write_fix_plan
from thirtytwo.data.load import load_dataset
from thirtytwo.errors import OutputError, ThirtytwoError, UnknownNameError
from thirtytwo.workflows.show_data import PHOTOGRAPH_SIDE, write_data_page


def as_csv(folder: Path) -> Path:
    files = sorted(folder.rglob("*.png"))
    lines = ["file,label", *(f"{file.relative_to(folder)},{file.parent.name}" for file in files)]
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "labels.csv"


def as_parquet(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    target = folder.parent / "tables"
    target.mkdir()
    files = sorted(folder.rglob("*.png"))
    names = sorted({file.parent.name for file in files})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "label": [names.index(file.parent.name) for file in files],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(target / "train-00000-of-00001.parquet")
    return target


@pytest.mark.long
@pytest.mark.parametrize("form", [lambda folder: folder, as_csv, as_parquet], ids=["folder", "csv", "parquet"])
def test_every_form_of_data(form, tiny: SimpleNamespace, tmp_path: Path) -> None:
    data = form(tiny.folder(tmp_path / "set", 36))
    page = write_data_page(str(data), tmp_path / "deep" / "page.html")
    text = page.path.read_text(encoding="utf-8")
    assert page.path == tmp_path / "deep" / "page.html"
    assert text.startswith("<!DOCTYPE html>")
    assert text.rstrip().endswith("</html>")
    assert all(name in text for name in page.data.classes)
    assert ("PNG" in text) == (data.suffix == ".csv" or not (data / "train-00000-of-00001.parquet").exists())


@pytest.mark.long
def test_photographs_are_shown_larger_and_unreadable_ones_are_noted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "set" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (200, 150) if number % 3 else (140, 210)
        Image.fromarray(random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    stream = io.BytesIO()
    Image.new("RGB", (200, 150)).save(stream, "JPEG")
    (tmp_path / "set" / "cat" / "broken.jpg").write_bytes(stream.getvalue()[:-300])
    page = write_data_page(str(tmp_path / "set"), tmp_path / "page.html")
    text = page.path.read_text(encoding="utf-8")
    assert page.data.train.images.shape[1] == PHOTOGRAPH_SIDE
    assert "broken.jpg" in text
    assert "2 different sizes" in text
    assert "Landscape" in text


def write_photographs(folder: Path, scale: int) -> None:
    """24 images of squares of `scale` pixels, in two classes."""
    random = np.random.default_rng(0)
    for number in range(24):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (15, 20, 3), dtype=np.uint8).repeat(scale, 0).repeat(scale, 1)
        Image.fromarray(pixels).save(path)


@pytest.mark.long
def test_the_summary_is_the_same_with_a_page_and_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "set", 10)
    for data in ("set", "digits"):
        assert run_command(["data", "show", data]) == 0
        alone = capsys.readouterr().out
        assert run_command(["data", "show", data, "--html", f"{data}.html"]) == 0
        assert capsys.readouterr().out == alone + f"{data}.html\n"
        means = re.findall(r"(?:red|green|blue) +([\d.]+) +([\d.]+)", alone)
        page = (tmp_path / f"{data}.html").read_text(encoding="utf-8")
        assert len(means) == 3
        assert all(value in page for pair in means for value in pair)


@pytest.mark.long
@pytest.mark.parametrize("form", [lambda folder: folder, as_csv, as_parquet], ids=["folder", "csv", "parquet"])
def test_photographs_are_shown_from_their_originals(form, tmp_path: Path) -> None:
    write_photographs(tmp_path / "set", 20)
    page = write_data_page(str(form(tmp_path / "set")), tmp_path / "page.html")
    text = page.path.read_text(encoding="utf-8")
    train = page.data.train
    place_of = {train.name_of(position): position for position in range(len(train))}
    shown = re.findall(r'<img id="image-\d+"[^>]* src="data:image/\w+;base64,([^"]+)" alt="\w+, ([^"]+)"', text)
    assert {name for _, name in shown} == set(place_of)
    for source, name in shown:
        image = Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB")
        assert image.size == (400, 300)
        center = np.asarray(image)[:, 50:350].mean(axis=(0, 1))
        assert center == pytest.approx(train.images[place_of[name]].mean(axis=(0, 1)), abs=3)


@pytest.mark.long
def test_the_command_writes_a_page_with_the_recipes_augmentation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["data", "show", "digits", "--html", "page.html"]
    assert run_command([*command, "--recipe", "digits", "--set", "augment.cutout=4"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "page.html"
    assert "per class" in out
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Augmented images" in text
    assert run_command(command) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == text


@pytest.mark.slow
def test_the_summary_has_splits_channels_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "show", "digits"]) == 0
    out = capsys.readouterr().out
    images = load_dataset("digits").train.images
    mean, std = images.mean(axis=(0, 1, 2)) / 255, images.std(axis=(0, 1, 2)) / 255
    assert f"{mean[0]:.4f}  {std[0]:.4f}" in out
    assert next(line.split() for line in out.splitlines() if line.startswith("train "))[1:3] == ["1,439", "80.1"]
    assert "8×8" in out


@pytest.mark.parametrize(
    ("target", "changes", "error"),
    [
        ("file/page.html", {}, OutputError),
        ("folder", {}, OutputError),
        ("file", {}, OutputError),
        ("page.html", {"recipe": "fsat"}, UnknownNameError),
        ("page.html", {"recipe": "fast", "overrides": {"augment": {"policy": "augmx"}}}, UnknownNameError),
    ],
)
def test_wrong_arguments_are_reported_before_the_data_is_read(
    target: str, changes: dict[str, object], error: type[ThirtytwoError], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(error) as caught:
        write_data_page("no such data", tmp_path / target, **changes)
    assert "no such data" not in caught.value.message
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.long
def test_a_page_needs_no_pytorch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from thirtytwo.cli.main import run_command\n"
        f"code = run_command(['data', 'show', 'digits', '--html', {str(tmp_path / 'page.html')!r}])\n"
        "sys.exit(code or ('torch' in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").is_file()


@pytest.mark.long
@pytest.mark.realdata
def test_cifar100_is_one_page_with_its_superclasses(data_root: Path, tmp_path: Path) -> None:
    page = write_data_page("cifar100", tmp_path / "page.html", data_root=data_root, most=300).path
    text = page.read_text(encoding="utf-8")
    assert len(text) < 15_000_000
    assert "100 in 20 superclasses" in text
    assert all(value in text for value in ("0.5071", "0.4865", "0.4409", "0.2673", "0.2564", "0.2762"))


@pytest.fixture
def with_plan(tiny: SimpleNamespace, tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 36 images, and a plan that drops one and relabels another."""
    data = tiny.folder(tmp_path / "set", 36)
    fixes = (Fix("drop", "", "class 0/0.png"), Fix("relabel", "", "class 1/1.png", to="class 2"))
    write_fix_plan(tmp_path / "plan.csv", FixPlan(fixes))
    return data, tmp_path / "plan.csv"


@pytest.mark.slow
def test_the_plan_of_a_recipe_is_applied_to_its_samples(
    with_plan: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, plan = with_plan
    assert run_command(["data", "show", str(data), "--recipe", "fast", "--set", f"data.fix_plan={plan}"]) == 0
    assert "1 dropped, 1 relabeled, 0 moved" in capsys.readouterr().err


@pytest.mark.long
def test_the_plan_of_a_recipe_is_applied_to_its_page(
    with_plan: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, plan = with_plan
    command = ["data", "show", str(data), "--html", str(tmp_path / "page.html")]
    assert run_command([*command, "--recipe", "fast", "--set", f"data.fix_plan={plan}"]) == 0
    captured = capsys.readouterr()
    assert "1 dropped, 1 relabeled, 0 moved" in captured.err
    shown = {line.split("  ")[0]: line.split()[2:] for line in captured.out.splitlines() if line.startswith("class ")}
    assert [sum(map(int, counts)) for counts in shown.values() if counts[0].isdigit()] == [11, 11, 13]
