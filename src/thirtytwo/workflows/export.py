"""Further files of a trained model, held against the one they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thirtytwo.data.run_data import load_run_data
from thirtytwo.data.split import limit
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import ExportError, OutputError, ThirtytwoError
from thirtytwo.export.formats import EXPORTS, ExportFormat
from thirtytwo.export.onnx import rewrite_info
from thirtytwo.export.parity import onnx_outputs, rounding
from thirtytwo.inference.classifier import BUNDLED, find_model
from thirtytwo.inference.model_file import read_info
from thirtytwo.io import check_free, written_whole
from thirtytwo.rundir import RunDir, writing_at
from thirtytwo.training.hardware import preserved

PICTURES = 2_000
"""On which both files are asked, at most."""


@dataclass(frozen=True)
class Agreement:
    """How far two model files say the same of `n` labelled pictures of a split.

    `same` is the part with the same top class, `largest` the largest difference of a probability; `accuracy` is the
    new file's, `before` that of the file it was made of. `outputs` says of each output how far it is off
    (`export.parity.rounding`); `allowed` is how far it may be.
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
    """A file that was made of `source`; `reason` says why it was not held against it, where it was not."""

    path: Path
    source: Path
    agreement: Agreement | None
    reason: str = ""


@preserved()
def export_model(
    model: Path | str,
    kind: str,
    *,
    out: Path | str | None = None,
    force: bool = False,
    data_root: Path | str | None = None,
) -> Exported:
    """Write a trained model in another format (`export.formats`), and ask both files about validation pictures.

    A new file whose weights were rounded does not claim the accuracy that was measured before. How far its outputs
    agree is written to the run's `exports.json`.

    Args:
        model: a run directory, a model file, or a bundled model's name.
        kind: the format's name.
        out: the file to write; without it one beside the model, or here if the model is a bundled one.
        force: replace what is there.
        data_root: where known data sets are looked for first.

    Raises:
        UnknownNameError: no such format or model.
        ModelFileError: no model of ours.
        RunError: a run directory without a model.
        OutputError: the file is there already, or cannot be written.
        ExportError: the model cannot be written in that format, or an output is further off than the format allows.
    """
    form = EXPORTS.get(kind)
    source = find_model(model)
    info = read_info(source)
    target = Path(out) if out is not None else _beside(source, form.ending)
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target} is the model that the new file is made of.", "Choose another name with --out.")
    check_free(target, force=force)
    with writing_at(target), written_whole(target) as temporary:
        form.write(source, temporary)
        if not form.same_contract:
            return Exported(target, source, None, f"{kind} is no model file of thirtytwo")
        rewrite_info(temporary, info.model_copy(update={"accuracy": None}))
        try:
            split, pictures = _pictures(source, Path(data_root) if data_root is not None else None)
        except ThirtytwoError as error:
            return Exported(target, source, None, error.message)
        agreement = _agreement(source, temporary, form, split, pictures)
        _check(agreement, source, kind)
    _record(RunDir(source.parent), target, kind, agreement)
    return Exported(target, source, agreement)


def _beside(source: Path, ending: str) -> Path:
    place = Path() if source.parent == BUNDLED else source.parent
    return place / (source.stem + ending)


def _pictures(source: Path, data_root: Path | None) -> tuple[str, ImageSet]:
    """Pictures that the model was not trained on; of its training where it held none out.

    Raises:
        RunError: the model lies in no run directory.
        DataError: its data is not at hand.
    """
    run = RunDir.open(source.parent)
    recipe, parts = run.read_recipe(), load_run_data(run, data_root, image_size=read_info(source).input_size).parts
    split, pictures = ("train", parts.train) if parts.val is None else ("validation", parts.val)
    return split, limit(pictures, PICTURES, recipe.data.split_seed) if len(pictures) > PICTURES else pictures


def _agreement(source: Path, target: Path, form: ExportFormat, split: str, pictures: ImageSet) -> Agreement:
    before, after = (onnx_outputs(path, pictures.images) for path in (source, target))
    outputs = rounding(before, after)
    classes, old = (said["probabilities"].argmax(axis=1) for said in (after, before))
    return Agreement(
        split,
        len(pictures),
        same=float((classes == old).mean()),
        largest=float(abs(after["probabilities"] - before["probabilities"]).max()),
        accuracy=float((classes == pictures.labels).mean()),
        before=float((old == pictures.labels).mean()),
        outputs=outputs,
        allowed=form.tolerance,
    )


def _check(agreement: Agreement, source: Path, kind: str) -> None:
    """Refuse a file that says something else.

    Raises:
        ExportError: names the outputs, and how far they are off.
    """
    off = [f"{name} by {value:.1%}" for name, value in agreement.outputs.items() if not value <= agreement.allowed]
    if off:
        raise ExportError(
            f"As {kind}, {source.name} says something else: on {agreement.n:,} {agreement.split} images outputs are "
            f"off by more than {agreement.allowed:.0%}: {', '.join(off)}.",
            "Keep the model as it is, or in another format; nothing was written.",
        )


def _record(run: RunDir, target: Path, kind: str, agreement: Agreement) -> None:
    """Write down in the run how far the new file agrees with the model."""
    before = run.read_json(run.exports) if run.exports.is_file() else {}
    run.write_json(run.exports, before | {target.name: {"format": kind} | vars(agreement)})
