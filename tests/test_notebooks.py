"""The notebooks run from a clean kernel, and are committed with their outputs."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "write_notebooks.py"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"quickstart", "transfer-story"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed_without_errors(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert "error" not in kinds
    data = [output.get("data", {}) for cell in code for output in cell["outputs"]]
    assert any("image/png" in found for found in data)
    assert any("text/html" in found for found in data)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_small_and_name_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert not re.search(r"/(?:tmp|home|root|Users)/", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_public_repository_gets_a_badge_that_opens_the_notebook_on_colab(path: Path) -> None:
    tools = runpy.run_path(str(ROOT / "tools" / "colab.py"))
    opening = tools["opening"]
    badge = opening(path.stem, {"Repository": "https://github.com/some-owner/some.name.git"})
    address = f"https://colab.research.google.com/github/some-owner/some.name/blob/main/notebooks/{path.name}"
    assert badge.startswith("[![Open in Colab](https://colab.research.google.com/assets/")
    assert badge.endswith(f"({address})")
    for urls in ({}, {"Repository": "https://example.org/some-owner/some-name"}):
        assert "choose *Upload*" in opening(path.stem, urls)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_generated_parts_are_current(path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from write_docs import current  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(ROOT / "tools"))
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"]) + "\n"
            assert current(source) == source, "regenerate it with: make notebooks"


def first_code(path: Path) -> str:
    return "".join(next(cell["source"] for cell in cells(path) if cell["cell_type"] == "code"))


def run_first_cell(path: Path, python: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the cell that installs thirtytwo, and import it, with an interpreter."""
    code = f"{first_code(path)}\nimport thirtytwo\nprint(thirtytwo.__file__)"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([python, "-c", code], env=clean | environment, capture_output=True, text=True, check=False)


def new_environment(place: Path, *, pip: bool) -> Path:
    """The interpreter of a new virtual environment."""
    venv.create(place, with_pip=pip)
    return place / "bin" / "python"


def write_wheel(place: Path) -> None:
    """A wheel with the name of the package and its extra, and nothing else."""
    head = "Metadata-Version: 2.1\nName: thirtytwo\nVersion: 0.0.1\nProvides-Extra: train\n"
    with zipfile.ZipFile(place / "thirtytwo-0.0.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thirtytwo/__init__.py", "")
        wheel.writestr("thirtytwo-0.0.1.dist-info/METADATA", head)
        wheel.writestr(
            "thirtytwo-0.0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("thirtytwo-0.0.1.dist-info/RECORD", "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_starts_in_a_new_folder_so_that_it_can_be_run_again(path: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    setup = next("".join(cell["source"]) for cell in cells(path)[2:] if cell["cell_type"] == "code")
    code = f"{setup}\nimport os\nfolders.append(os.getcwd())\nassert not os.listdir()"
    twice = f"folders = []\nfor _ in range(2):\n    exec({code!r})\nprint(len(set(folders)))"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "TMPDIR": str(tmp_path),
        "THIRTYTWO_DATA": str(tmp_path),
    }
    command = [sys.executable, "-c", twice]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["2"]), done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_of_notebooks_need_no_search_path(path: Path) -> None:
    code = ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]
    lines = [line for cell in code for line in cell.splitlines() if line.startswith("!")]
    assert all(line.startswith("!{sys.executable} -m thirtytwo ") for line in lines)


def test_all_notebooks_install_in_the_same_way() -> None:
    assert len({first_code(path) for path in NOTEBOOKS}) == 1


def test_nothing_is_installed_where_it_is_there(tmp_path: Path) -> None:
    python = new_environment(tmp_path / "bare", pip=False)  # would fail to install
    done = run_first_cell(NOTEBOOKS[0], python, PYTHONPATH=str(ROOT / "src"))
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).parent == ROOT / "src" / "thirtytwo"


def test_where_it_cannot_be_installed_one_sentence_says_how(tmp_path: Path) -> None:
    done = run_first_cell(NOTEBOOKS[0], new_environment(tmp_path / "bare", pip=False))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ModuleNotFoundError: thirtytwo could not be installed")
    assert last.endswith('in a clone of its repository, run: pip install ".[train]"')


@pytest.mark.long
def test_it_is_installed_from_the_package_index(tmp_path: Path) -> None:
    write_wheel(tmp_path)
    python = new_environment(tmp_path / "new", pip=True)
    done = run_first_cell(NOTEBOOKS[0], python, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "new")
    assert run_first_cell(NOTEBOOKS[0], python, PIP_NO_INDEX="1", PIP_FIND_LINKS="").returncode == 0, "once"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_a_clean_kernel(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # Without CIFAR-10 the steps run on embedded digits, which takes less time.
    environment = {
        **os.environ,
        "THIRTYTWO_DATA": str(tmp_path),
        "PYTHONPATH": str(ROOT / "src"),
        "THIRTYTWO_SLICE": "20",
    }
    command = [sys.executable, str(TOOL), str(path), "--check"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
