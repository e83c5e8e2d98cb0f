"""Run the notebooks in clean kernels and keep their outputs: `make notebooks`.

    python tools/write_notebooks.py [NOTEBOOK …] [--check]

Generated parts of their texts are made current first, as in docs/. `--check` runs them in a temporary folder and writes
nothing. CIFAR-10 is used where it is found (`THIRTYTWO_DATA`), and embedded data elsewhere.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
SECONDS = 1800
MOST_BYTES = 1_000_000
"""Largest size of a notebook with its outputs."""
KEPT_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="*", help="default: all")
    parser.add_argument("--check", action="store_true", help="run them and write nothing")
    options = parser.parse_args()
    for path in options.notebooks or sorted(FOLDER.glob("*.ipynb")):
        found = with_current_parts(read(path))
        run(found)
        if not options.check:
            nbformat.write(cleaned(found), path)
        print(f"{'run' if options.check else 'written'}: {path.name} ({len(nbformat.writes(found)) / 1000:.0f} kB)")
    return 0


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def with_current_parts(notebook: Any) -> Any:
    """The notebook with current generated tables in its texts."""
    from write_docs import current

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = current(cell.source + "\n").rstrip("\n")
    return notebook


def run(notebook: Any) -> None:
    """Run all cells in a clean kernel, in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "110", "TMPDIR": folder}
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=SECONDS, resources=resources, coalesce_streams=True)
        client.execute(env=environment)


def cleaned(notebook: Any) -> Any:
    """The notebook without what differs from run to run or names this machine.

    Raises:
        ValueError: an output names a folder of this machine, or the notebook is too large.
    """
    notebook.metadata = nbformat.from_dict(KEPT_METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.metadata = nbformat.from_dict({})
        cell.id = f"cell-{number:02}"
        if cell.cell_type == "code":  # progress bars show seconds, which are those of one run
            cell.outputs = [one for one in cell.outputs if "<progress" not in one.get("data", {}).get("text/html", "")]
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data.pop("image/jpeg", None)  # IPython shows Pillow's images in both formats
    text = nbformat.writes(notebook)
    places = (str(ROOT), str(Path.home()), tempfile.gettempdir(), sys.prefix, os.environ.get("THIRTYTWO_DATA"))
    if found := [place for place in places if place and place in text]:
        raise ValueError(f"an output names a folder of this machine: {found[0]}")
    if len(text) > MOST_BYTES:
        raise ValueError(f"the notebook has {len(text):,} bytes, more than {MOST_BYTES:,}: show smaller images")
    return notebook


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
