"""The notebooks run from a clean kernel, and are committed with their outputs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
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
