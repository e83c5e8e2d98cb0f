"""Export a trained model to other formats, and compare the result with the original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thirtytwo.arguments import check_text, optional_path, path_of
from thirtytwo.data.run_data import load_run_data
from thirtytwo.data.split import covering_sample
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import ExportError, OutputError, RunError, ThirtytwoError
from thirtytwo.export.metadata import rewrite_info
from thirtytwo.export.parity import onnx_outputs, rounding
from thirtytwo.export.quantize import EXPORTS, ExportFormat
from thirtytwo.inference.hub import PREFIX
from thirtytwo.inference.library import BUNDLED, find_model, model_argument
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.io import FORMATS, atomic_write, check_writable, expand_home, is_file
from thirtytwo.rundir import RunDir, lock_run_of
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.text import percent

MAX_IMAGES = 2_000
"""Maximum number of images to compare both files on."""


@dataclass(frozen=True)
class Agreement:
    """How far two model files agree on `n` labeled images of a split.

    `same` is the fraction of images with the same top class, `largest` the largest difference of a probability;
    `accuracy` is that of the new file, `before` that of the original. `outputs` holds the relative error of each output
    (`export.parity.rounding`), `allowed` is the largest one accepted.
    """

    split: str
    n: int
    same: float
    largest: float
    accuracy: float
    before: float
    outputs: dict[str, float]
    allowed: float


@dataclass(frozen=True)
class Exported:
    """A file that was exported from `source`; `reason` says why it was not compared with it, where it was not."""

    path: Path
    source: Path
    agreement: Agreement | None
    reason: str = ""


@preserve_torch_state()
def export_model(
    model: Path | str,
    kind: str,
    *,
    out: Path | str | None = None,
    force: bool = False,
    data_root: Path | str | None = None,
) -> Exported:
    """Export a trained model to another format (`export.formats`), and compare both files on validation images.

    The new file does not carry the accuracy of the original, which was measured with other weights. How far the outputs
    agree is written to the run's `exports.json`.

    Args:
        model: a run directory, a model file, a bundled model's name, or `hf:owner/name`.
        kind: name of the format.
        out: file to write; beside the model by default, in the working directory for a model that is bundled or of the
            hub.
        force: replace an existing file.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.

    Returns:
        The written file, its source, and how far both agree.

    Raises:
        ArgumentError: `model`, `out` or `data_root` is no path, or `kind` no text.
        UnknownNameError: there is no such format or model.
        ModelFileError: the file is not a model of thirtytwo.
        RunError: the run directory has no model.
        OutputError: the file exists, cannot be written, or has the suffix of another format.
        ExportError: the model cannot be exported to the format, or an output differs by more than the format allows.
    """
    path_of("model", model)
    check_text("kind", kind)
    target, root = optional_path("out", out), optional_path("data_root", data_root)
    form = EXPORTS.get(kind)
    source = find_model(model)
    info = read_info(source)
    target = expand_home(target) if target is not None else _default_target(str(model), source, form.ending)
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target} is the model to export itself.", "Choose another name with --out.")
    check_writable(target, force=force, format=FORMATS.get(Path(form.ending).suffix, ""))
    with lock_run_of(target), atomic_write(target) as temporary:
        form.write(source, temporary)
        written = _compared(source, temporary, target, kind, info, root)
    with lock_run_of(source):
        _record(RunDir(source.parent), target, kind, written.agreement)
    return written


def _compared(source: Path, temporary: Path, target: Path, kind: str, info: ModelInfo, root: Path | None) -> Exported:
    """Compare the new file with the model on images of its run, or say why it cannot be compared.

    Raises:
        ExportError: an output differs by more than the format allows.
    """
    form = EXPORTS.get(kind)
    if not form.same_contract:
        return Exported(target, source, None, f"{kind} is not a model file of thirtytwo")
    rewrite_info(temporary, info.model_copy(update={"accuracy": None}))
    try:
        split, images = _load_images(source, root)
    except ThirtytwoError as error:
        return Exported(target, source, None, error.message)
    agreement = _agreement(source, temporary, form, split, images)
    _check(agreement, source, kind)
    return Exported(target, source, agreement)


def _default_target(model: str, source: Path, ending: str) -> Path:
    """The file to write for a model as it was named; nothing is written into the package or the hub's cache."""
    elsewhere = source.parent == BUNDLED or (model.startswith(PREFIX) and not Path(model).exists())
    return (Path() if elsewhere else source.parent) / (source.stem + ending)


def _load_images(source: Path, data_root: Path | None) -> tuple[str, ImageSet]:
    """Load validation images, or training images where the run has no validation.

    Raises:
        RunError: the model is not in a run directory.
        DataError: its data is not available.
    """
    if not is_file(RunDir(source.parent).recipe):
        raise RunError(f"{model_argument(source)} is not in a run directory, on whose images it would be compared.")
    run = RunDir.open(source.parent)
    recipe, parts = run.read_recipe(), load_run_data(run, data_root, image_size=read_info(source).input_size).parts
    split, images = ("train", parts.train) if parts.val is None else ("validation", parts.val)
    return split, covering_sample(images, MAX_IMAGES, recipe.data.split_seed)


def _agreement(source: Path, target: Path, form: ExportFormat, split: str, images: ImageSet) -> Agreement:
    before, after = (onnx_outputs(path, images.images) for path in (source, target))
    outputs = rounding(before, after)
    classes, old = (outputs_of["probabilities"].argmax(axis=1) for outputs_of in (after, before))
    return Agreement(
        split,
        len(images),
        same=float((classes == old).mean()),
        largest=float(abs(after["probabilities"] - before["probabilities"]).max()),
        accuracy=float((classes == images.labels).mean()),
        before=float((old == images.labels).mean()),
        outputs=outputs,
        allowed=form.tolerance,
    )


def _check(agreement: Agreement, source: Path, kind: str) -> None:
    """Check that the outputs agree as far as the format allows.

    Raises:
        ExportError: they do not; the message names the outputs and their errors.
    """
    off = [f"{name} by {percent(value)}" for name, value in agreement.outputs.items() if not value <= agreement.allowed]
    if off:
        raise ExportError(
            f"Outputs of {source.name} as {kind} differ from the original by more than "
            f"{percent(agreement.allowed, 0)} on {agreement.n:,} {agreement.split} images: {', '.join(off)}.",
            "Use another format, or keep the original; nothing was written.",
        )


def _record(run: RunDir, target: Path, kind: str, agreement: Agreement | None) -> None:
    """Record in the run how far the new file agrees with the model; if that is not known, remove an earlier record."""
    before = run.read_json(run.exports) if run.exports.is_file() else {}
    if agreement is not None:
        run.write_json(run.exports, before | {target.name: {"format": kind} | vars(agreement)})
    elif target.name in before:
        run.write_json(run.exports, {name: entry for name, entry in before.items() if name != target.name})
