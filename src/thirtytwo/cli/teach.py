"""`thirtytwo teach`: a model for new classes from a few images of each."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from thirtytwo.cli.console import log, log_new_folder, show, show_table
from thirtytwo.errors import require
from thirtytwo.inputs import refuse_image_as_output
from thirtytwo.io import check_writable, expand_home
from thirtytwo.text import capitalized, listing, percent, readable

if TYPE_CHECKING:
    from thirtytwo.fewshot import LinearProbe

_MAX_LISTED = 3
_MAX_ROWS = 30


def teach(folder: Path, *, out: Path, base: str | None, views: int | None, seed: int, force: bool) -> None:
    """Fit a linear probe on the class folders of `folder`, write it to `out` and print what to expect of it.

    Raises:
        OutputError: `out` exists and `force` is not set, or it cannot be written, or has the suffix of another format.
        DataError: the folder or its images cannot be used.
        UnknownNameError: there is no such base model.
        MissingExtraError: the library `onnx` is not installed.
    """
    out = expand_home(out)
    check_writable(out, force=force, format="ONNX")
    log_new_folder(out)
    require("onnx", "app")  # before anything slow
    from thirtytwo.doctor.checks.similar_names import SimilarNames, similar_names, similar_names_text
    from thirtytwo.doctor.near_duplicates import find_alike
    from thirtytwo.fewshot import RESIZE, choose_base, find_class_files, fit_linear_probe, load_classes, validate_counts
    from thirtytwo.inference.classifier import Classifier

    found = find_class_files(expand_home(folder))
    refuse_image_as_output(out, chain.from_iterable(found.files.values()))
    validate_counts({name: len(paths) for name, paths in found.files.items()})
    path, reason = choose_base(base, found.sides())
    classifier = Classifier(path)
    log(f"Base: {path.stem if base is None else base} ({reason})")
    pixels, problems = load_classes(found.files, classifier.info.input_size, RESIZE)
    for note in _summaries(found.skipped, problems):
        log(note)
    for names in similar_names(found.files):
        log(f"{similar_names_text(names)} {SimilarNames.fix}")
    probe = fit_linear_probe(classifier, pixels, views=views, resize=RESIZE, seed=seed)
    if copies := sum(map(len, pixels.values())) - sum(probe.counts):
        log(f"Left out images that are copies of others of their class: {copies:,}.")
    probe.write(out)
    for note in probe.notes:
        log(note)
    _show_classes(probe)
    show(f"Expected accuracy: {probe.expectation}")
    if probe.verdict is not None:
        show(f"Verdict: {probe.verdict.sentence}")
    for step in probe.next_steps(find_alike(probe.images, found.sides())):
        show(f"Next: {step.sentence}")
    show(str(out))


def _summaries(skipped: tuple[str, ...], problems: list[str]) -> list[str]:
    notes = [] if not skipped else [f"{capitalized(listing(skipped, _MAX_LISTED, quoted=False, separator='; '))}."]
    if problems:
        reasons = listing((one.rstrip(".") for one in problems), _MAX_LISTED, quoted=False, separator="; ")
        notes.append(f"Skipped images that cannot be read: {len(problems)} ({reasons}).")
    return notes


def _show_classes(probe: LinearProbe) -> None:
    """Print the number of images of each class and how many are right in cross-validation."""
    counts = probe.counts
    if len(counts) > _MAX_ROWS:
        return
    rows = [
        (readable(name), f"{count:,}", "" if right is None else percent(right / count))
        for name, count, right in zip(probe.info.classes, counts, probe.right, strict=True)
    ]
    show_table(["class", "images", "recall"], rows)
