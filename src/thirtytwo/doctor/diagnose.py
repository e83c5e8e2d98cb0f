"""Load a data set and run the checks on it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thirtytwo.config.recipe import DataSettings
from thirtytwo.data.fixes import FixPlan
from thirtytwo.data.load import load_dataset, parse
from thirtytwo.data.types import DataSet, Together
from thirtytwo.doctor import checks  # noqa: F401  registers the checks
from thirtytwo.doctor.base import CHECKS, SEVERITIES, Check, Finding, Severity
from thirtytwo.doctor.checks.few_images import FewImages
from thirtytwo.doctor.checks.missing_classes import MissingClasses
from thirtytwo.doctor.checks.unreadable import Unreadable, Unusable
from thirtytwo.doctor.out_of_fold import check_fixes, fixes_of, read_out_of_fold
from thirtytwo.doctor.subject import Subject
from thirtytwo.doctor.together import kept_together
from thirtytwo.errors import DataError, ImageError, OfflineError
from thirtytwo.images.pixels import ResizeRule
from thirtytwo.text import listing

BY_PREDICTIONS = "T501"
"""Code of the check that uses predictions."""
BLOCKING = frozenset({Unusable.code, MissingClasses.code, FewImages.code})
"""Codes of the checks whose errors mean that training refuses the data."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The findings on a data set, most severe first.

    `subject` is None where the data set could not be loaded; `ran` has the codes of the checks that were run; `fixes`
    is the plan that was applied to the data first, because the predictions that were used are of such data.
    """

    spec: str
    subject: Subject | None
    findings: tuple[Finding, ...]
    ran: tuple[str, ...]
    fixes: FixPlan | None = None

    @property
    def data(self) -> DataSet | None:
        """The data set, None where it could not be loaded."""
        return None if self.subject is None else self.subject.data

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings for which training refuses the data as it is, apart from images that cannot be read."""
        return tuple(found for found in self.findings if found.severity == "error" and found.code in BLOCKING)

    @property
    def is_blocked(self) -> bool:
        """Whether training refuses the data as it is, for another reason than images that cannot be read."""
        return bool(self.blocking)

    def reaches(self, severity: Severity | Literal["never"]) -> bool:
        """Whether a finding is as severe as this, or more."""
        if severity == "never":
            return False
        return any(self.count(found) for found in SEVERITIES[: SEVERITIES.index(severity) + 1])


def diagnose(
    spec: str,
    *,
    data_root: Path | None = None,
    image_size: int | Literal["auto"] = "auto",
    resize: ResizeRule = "crop",
    seed: int = 0,
    cache: bool = True,
    muted: Collection[str] = (),
    only: Collection[str] = (),
    costly: bool = False,
    predictions: Path | None = None,
) -> Diagnosis:
    """Load a data set and examine it; the first arguments are those of `load_dataset`.

    Args:
        spec: the data set.
        data_root: folder where known data sets are looked for.
        image_size: side of the decoded images.
        resize: how images are resized.
        seed: seed of splits.
        cache: whether decoded images are cached.
        muted: codes of checks that are left out.
        only: codes of the only checks that are run; empty: all.
        costly: whether checks run that take minutes.
        predictions: directory of a cross-validation, or its predictions out of their folds, which the check of labels
            then uses; it runs without `costly`. If a plan of fixes was applied to the cross-validated data, it is
            applied here, too.

    Raises:
        UnknownNameError: no such data set, or no such check.
        RunError: the predictions cannot be read.
        DataError: they do not fit the data, or no check is left to run.
        OfflineError: it is not on this machine and cannot be downloaded.
    """
    chosen = chosen_checks(muted, only, costly, [] if predictions is None else [BY_PREDICTIONS])
    parse(spec, data_root=data_root)
    fixes = None if predictions is None else fixes_of(predictions)
    if fixes is not None and predictions is not None:
        check_fixes(fixes, spec, predictions, data_root)
    unreadable: list[ImageError] = []
    lacking: list[tuple[str, str]] = []

    def load(split_test: bool) -> DataSet:
        unreadable.clear()
        lacking.clear()
        return load_dataset(
            spec,
            data_root=data_root,
            image_size=image_size,
            resize=resize,
            seed=seed,
            cache=cache,
            unreadable=unreadable,
            together=_kept(spec, seed, data_root, fixes),
            split_test=split_test,
            fix_plan=fixes,
            lacking=lacking,
        )

    try:
        data, undivided = _load_divided(load)
    except OfflineError:
        raise
    except DataError as error:
        findings = [*Unreadable.findings(unreadable), Unusable.finding(error.message, fix=error.fix or "")]
        return Diagnosis(spec, None, tuple(findings), ())
    out_of_fold = None if predictions is None else read_out_of_fold(predictions, data)
    subject = Subject(
        data,
        unreadable,
        spec=spec,
        data_root=data_root,
        out_of_fold=out_of_fold,
        lacking=lacking,
        undivided=undivided,
    )
    found = tuple(finding for check in chosen for finding in check().run(subject))
    return Diagnosis(spec, subject, by_severity(found), tuple(check.code for check in chosen), fixes)


def _load_divided(load: Callable[[bool], DataSet]) -> tuple[DataSet, DataError | None]:
    """Load data with a test set, or without one and the reason where none can be split off.

    Raises:
        DataError: it cannot be loaded at all.
    """
    try:
        return load(True), None
    except OfflineError:
        raise
    except DataError as error:
        return load(False), error


def _kept(spec: str, seed: int, data_root: Path | None, fixes: FixPlan | None) -> Together | None:
    """What training keeps together by default where it splits the data, so that the same splits are examined."""
    settings = DataSettings(split_seed=seed, skip_unreadable=True)
    return kept_together(spec, settings, data_root, fixes).together


def examine(data: DataSet) -> tuple[Finding, ...]:
    """The findings of all checks that are not costly on a loaded data set, most severe first."""
    subject = Subject(data)
    return by_severity(tuple(finding for check in chosen_checks() for finding in check().run(subject)))


def _code(name: str) -> str:
    """The code of a check that is written in small or capital letters.

    Raises:
        UnknownNameError: there is no such check.
    """
    return CHECKS.get(name if name in CHECKS else name.upper()).code


def chosen_checks(
    muted: Collection[str] = (), only: Collection[str] = (), costly: bool = False, cheap: Collection[str] = ()
) -> tuple[type[Check], ...]:
    """The checks to run, by code; those of `cheap` are not costly here.

    Raises:
        UnknownNameError: there is no check of such a code.
        DataError: no check is left.
    """
    muted, only, cheap = ([_code(name) for name in names] for names in (muted, only, cheap))
    found = [CHECKS.get(code) for code in CHECKS if code not in muted and (not only or code in only)]
    left = tuple(check for check in found if costly or not check.costly or check.code in {*only, *cheap})
    if not left:
        named = f"all that --only names ({listing(sorted(set(only)), quoted=False)})" if only else "all of them"
        raise DataError(
            f"No check is left to run: --mute leaves out {named}.", "Mute fewer checks, or name others with --only."
        )
    return left


def by_severity(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Findings sorted by severity, those of equal severity in their order."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
