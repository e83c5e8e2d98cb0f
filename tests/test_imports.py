"""Modules for inference and the command line work with the plain install: no PyTorch, no extras."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import thirtytwo

NEED_THE_EXTRA = (
    "thirtytwo.app",
    "thirtytwo.augment",
    "thirtytwo.tensors",
    "thirtytwo.evaluation.scoring",
    "thirtytwo.explain.gradients",
    "thirtytwo.export",
    "thirtytwo.training",
    "thirtytwo.models",
    "thirtytwo.workflows",
    "thirtytwo.report",
    "thirtytwo.serve",
    "thirtytwo.scale.dispatch",
    "thirtytwo.scale.replicas",
    "thirtytwo.scale.serve",
    "thirtytwo.scale.tuning",
)
"""All other modules must be importable without PyTorch and without any extra."""

ROOT = Path(thirtytwo.__file__).parent
MODULES = sorted(
    name
    for path in ROOT.rglob("*.py")
    if not (name := ".".join(("thirtytwo", *path.relative_to(ROOT).with_suffix("").parts))).startswith(NEED_THE_EXTRA)
    and not name.endswith(("__init__", "__main__"))
)

PLAIN_INSTALL = """
import importlib, importlib.abc, json, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, NotInstalled())
problems = {}
for name in json.loads(sys.argv[2]):
    try:
        importlib.import_module(name)
    except Exception as error:
        problems[name] = repr(error)
print(json.dumps(problems))
"""

MODULE_OF = {
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "python-multipart": "multipart",
    "prometheus-client": "prometheus_client",
    "pydantic-settings": "pydantic_settings",
}


def of_extras() -> list[str]:
    """Top-level modules of libraries that only extras install."""
    names = [line.split(">")[0].split("[")[0] for line in requires("thirtytwo") or [] if "extra ==" in line]
    return sorted({MODULE_OF.get(name, name) for name in names if name != "thirtytwo"} | {"pandas"})


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_there_is_something_to_test() -> None:
    assert {"thirtytwo.config.recipe", "thirtytwo.cli.main", "thirtytwo.inference.classifier"} <= set(MODULES)
    assert {"torch", "lightning", "sklearn", "pyarrow"} <= set(of_extras())


def test_plain_modules_need_no_extra() -> None:
    assert json.loads(run(PLAIN_INSTALL, json.dumps(of_extras()), json.dumps(MODULES))) == {}


@pytest.mark.parametrize("name", ["thirtytwo", "thirtytwo.cli.main"])
def test_the_first_import_is_cheap(name: str) -> None:
    loaded = set(json.loads(run(f"import json, sys, {name}; print(json.dumps(list(sys.modules)))")))
    assert not loaded & {"torch", "lightning", "onnxruntime", "pandas", "matplotlib", "datasets", "sklearn"}


def test_predicting_imports_pydantic_only_while_the_model_is_opened() -> None:
    names = "thirtytwo.cli.main, thirtytwo.cli.predict, thirtytwo.images.discover, thirtytwo.inference.classifier"
    assert "pydantic" not in json.loads(run(f"import json, sys, {names}; print(json.dumps(list(sys.modules)))"))


def test_public_names_are_there() -> None:
    assert set(thirtytwo.__all__) <= set(dir(thirtytwo))
    for name in thirtytwo.__all__:
        assert getattr(thirtytwo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        thirtytwo.nothing  # noqa: B018


def test_package_data_is_shipped() -> None:
    for pattern in ("py.typed", "config/recipes/*.toml", "report/templates/*.j2"):
        assert list(ROOT.glob(pattern)), pattern
