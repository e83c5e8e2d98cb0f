"""The models that can be named: bundled ones, those of runs, files, and models of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from thirtytwo.errors import ModelFileError, RunError, UnknownNameError, did_you_mean
from thirtytwo.inference.hub import PREFIX, download_model
from thirtytwo.io import RUNS, expand_home, is_directory, is_file

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_BUNDLED = "imagenet"
"""The bundled model that is used where none is named: of photographs it names the most."""
SMALL_BUNDLED = "cifar100"
"""The bundled model that suits images as small as CIFAR's."""
_TRAIN = "Train one with `thirtytwo train cifar10` (or any other data set or folder of images)"


def bundled_models() -> dict[str, Path]:
    """Paths of the models bundled with this installation, by name; the default model first."""
    paths = sorted(BUNDLED.glob("*.onnx"), key=lambda path: (path.stem != DEFAULT_BUNDLED, path.stem))
    return {path.stem: path for path in paths}


def finished_runs() -> list[Path]:
    """The `model.onnx` of the finished runs under ./runs, newest first."""
    paths = [path for path in RUNS.glob("*/model.onnx") if path.is_file()]
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def model_name(path: Path) -> str:
    """The name of a model file: its run's name for a `model.onnx`, else the file's."""
    return path.resolve().parent.name if path.name == "model.onnx" else path.stem


def model_argument(path: Path) -> str:
    """A model file as `--model` takes it: the name of a bundled model, else the path."""
    return path.stem if path.parent == BUNDLED else str(path)


def find_model(name_or_path: str | Path) -> Path:
    """Resolve a bundled name, a run directory, a model file or `hf:owner/name`; raises the errors of `classifier.load`.

    A folder that is no run, such as one of data, does not hide the bundled model of its name.
    """
    path, name = expand_home(name_or_path), str(name_or_path)
    if not name:
        raise UnknownNameError("The name of the model is empty.", "Check whether a variable is unset.")
    if name.startswith(PREFIX) and not path.exists():
        return download_model(name)
    if is_file(path):
        return path
    bundled = bundled_models()
    if is_directory(path) and (name not in bundled or _is_run(path)):
        return _model_of_run(path)
    if name in bundled:
        return bundled[name]
    if path.suffix or len(path.parts) > 1:
        raise ModelFileError(
            f"There is no model file or run directory {name!r}.",
            "Give a model.onnx or a run directory; training prints the path of its run.",
        )
    if not bundled:
        raise UnknownNameError(
            f"Unknown model {name!r}: no such file or run directory, and this installation has no bundled models.",
            f"{_TRAIN} and give --model its run directory.",
        )
    raise UnknownNameError(f"Unknown model {name!r}: no such file or run directory.", did_you_mean(name, bundled))


def default_model() -> Path:
    """The model used by default: the bundled `imagenet`, else the newest finished run under ./runs.

    Raises:
        ModelFileError: neither exists.
    """
    bundled = bundled_models()
    if DEFAULT_BUNDLED in bundled:
        return bundled[DEFAULT_BUNDLED]
    finished = finished_runs()
    if not finished:
        raise ModelFileError(
            "There is no model: this installation has no bundled models and ./runs has no finished run.",
            f"{_TRAIN}, or give --model a model.onnx or a run directory.",
        )
    return finished[0]


def _is_run(path: Path) -> bool:
    """Whether a directory is a run, also an unfinished one, or one of several seeds or folds."""
    from thirtytwo.run_paths import holds_seeds
    from thirtytwo.rundir import RunDir

    run = RunDir(path)
    return is_file(run.onnx) or is_file(run.recipe) or holds_seeds(path)


def _model_of_run(path: Path) -> Path:
    from thirtytwo.rundir import RunDir

    model = RunDir(path).onnx
    if is_file(model):
        return model
    run = RunDir.open(path)
    raise RunError(f"{path} has no {model.name}: its training did not finish.", run.resume_hint())
