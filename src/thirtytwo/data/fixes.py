"""Plans of fixes for a data set: images to drop, to relabel or to move, as a CSV file that people read and edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from thirtytwo.data.sources.csvfile import read_rows
from thirtytwo.data.split import SPLITS, split_of
from thirtytwo.errors import DataError, OutputError, did_you_mean
from thirtytwo.io import expand_home, write_bytes
from thirtytwo.rundir import RunDir
from thirtytwo.text import CsvWriter, counted, csv_text, itemized, listing, quote

Action: TypeAlias = Literal["drop", "relabel", "move"]
ACTIONS: tuple[Action, ...] = get_args(Action)
COLUMNS = ("action", "split", "file", "class", "to", "reason", "evidence")
"""Columns of a plan for files; for images without files, `row` stands for `file`."""
ROW = "row"
KNOWN_SPLITS = f"Known splits: {', '.join(SPLITS)}."
_NEW_PLAN = "Correct these rows, or write a new plan with: thirtytwo data doctor DATA --fix-plan FILE"


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row of a plan, as a phrase, and a sentence that helps with all such rows, or none."""

    what: str
    help: str = ""


@dataclass(frozen=True)
class Fix:
    """One row of a plan.

    Attributes:
        action: what to do with the image.
        split: its split at present; may be empty where it is a file.
        image: its file as the data set names it, or its row.
        label: name of its class at present; empty: not checked.
        to: the new class of `relabel`, the new split of `move`.
        reason: code and title of the finding, for people.
        evidence: what speaks for it, for people.
        line: line in the file of the plan, from 1; 0 where it is from none.
    """

    action: Action
    split: str
    image: str
    label: str = ""
    to: str = ""
    reason: str = ""
    evidence: str = ""
    line: int = 0


@dataclass(frozen=True)
class FixPlan:
    """A plan of fixes.

    Attributes:
        fixes: the rows that could be read.
        by_row: whether images are named by their rows instead of their files.
        where: what error messages call the plan.
        content: the file as it was read; empty where it is from none.
        problems: what is wrong with the other rows; `refuse_problems` raises them.
    """

    fixes: tuple[Fix, ...]
    by_row: bool = False
    where: str = "The plan"
    content: bytes = field(default=b"", repr=False)
    problems: tuple[Problem, ...] = ()

    @property
    def counts(self) -> dict[Action, int]:
        """Number of rows of each action."""
        found = Counter(fix.action for fix in self.fixes)
        return {action: found[action] for action in ACTIONS}


def write_fix_plan(path: Path, plan: FixPlan, *, force: bool = False) -> None:
    """Write a plan as CSV.

    Raises:
        OutputError: the file exists and `force` is not set, or it cannot be written.
    """
    path = expand_home(path)
    if path.exists() and not force:
        raise OutputError(f"{path} exists already.", "Choose another name, or move it away.")
    write_bytes(path, encode_fix_plan(plan))


def encode_fix_plan(plan: FixPlan) -> bytes:
    """A plan as the content of a CSV file in UTF-8; `read_fix_plan` reads it."""
    stream = StringIO()
    writer = CsvWriter(stream)
    writer.writerow(ROW if plan.by_row and name == "file" else name for name in COLUMNS)
    for fix in plan.fixes:
        writer.writerow((fix.action, fix.split, fix.image, fix.label, fix.to, fix.reason, fix.evidence))
    return stream.getvalue().encode(errors="backslashreplace")


def read_fix_plan(path: Path) -> FixPlan:
    """Read a plan; separator and encoding are detected, and a spreadsheet may have written it.

    Rows that cannot be read become `problems`, which are raised together with those of rows that do not fit the data.

    Raises:
        DataError: the file cannot be read, or has other columns than a plan.
    """
    path = expand_home(path)
    rows = read_rows(path, strip=False, least=0)
    if not rows:
        raise DataError(f"{path} is empty.", _NEW_PLAN)
    (_, header), *lines = rows
    names = _column_names(path, header)
    fixes: list[Fix] = []
    problems: list[Problem] = []
    for line, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(names) and any(cells[len(names) :]):
            problems.append(Problem(f"line {line} has {len(cells)} cells", f"At most {len(names)} cells are expected."))
            continue
        fix = _fix(line, dict(zip(names, map(csv_text, cells), strict=False)))
        if isinstance(fix, Problem):
            problems.append(replace(fix, what=f"line {line}: {fix.what}"))
        else:
            fixes.append(fix)
    return FixPlan(tuple(fixes), ROW in names, str(path), path.read_bytes(), tuple(problems))


def _column_names(path: Path, header: Sequence[str]) -> list[str]:
    """The names of the columns.

    Raises:
        DataError: unknown, missing or repeated columns.
    """
    names = [name.strip().casefold() for name in header]
    while names and not names[-1]:
        names.pop()
    expected = f"Expected the columns {', '.join(COLUMNS)}, with {ROW} instead of file for data without files."
    if unknown := [name for name in names if name not in (*COLUMNS, ROW)]:
        close = did_you_mean(unknown[0], (*COLUMNS, ROW))
        raise DataError(f"{path} is not a plan of fixes: it has unknown columns: {listing(unknown)}. {close}", expected)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path} has columns twice: {listing(repeated)}.", expected)
    if "file" in names and ROW in names:
        raise DataError(f"{path} has both of the columns file and {ROW}.", expected)
    needed = ("action", ROW, "split") if ROW in names else ("action", "file")
    if missing := [name for name in needed if name not in names]:
        raise DataError(f"{path} is not a plan of fixes: it lacks the columns {listing(missing)}.", expected)
    return names


def _fix(line: int, cell: Mapping[str, str]) -> Fix | Problem:
    """The fix in the cells of a row, by column; or what is wrong with them."""
    action = next((known for known in ACTIONS if known == cell.get("action", "").strip().casefold()), None)
    if action is None:
        return Problem(f"unknown action {quote(cell.get('action', ''))}", f"Known actions: {', '.join(ACTIONS)}.")
    image, to, split = cell.get("file", "") or cell.get(ROW, "").strip(), cell.get("to", ""), cell.get("split", "")
    if not image:
        return Problem(f"the cell {ROW if ROW in cell else 'file'} is empty")
    if ROW in cell and not image.isdecimal():
        return Problem(f"{quote(image)} is not a number of a row")
    if (split.strip() and split_of(split.strip()) is None) or (ROW in cell and not split.strip()):
        return Problem(f"unknown split {quote(split)}", KNOWN_SPLITS)
    if action != "drop" and not to.strip():
        return Problem(f"{action} needs a new {'class' if action == 'relabel' else 'split'} in the column to")
    if action == "move":
        new = split_of(to.strip())
        if new is None:
            return Problem(f"unknown split {quote(to)}", KNOWN_SPLITS)
        to = new
    texts = (cell.get("class", ""), to, cell.get("reason", ""), cell.get("evidence", ""))
    return Fix(action, split_of(split.strip()) or "", image, *texts, line=line)


def refuse_problems(plan: FixPlan, where: str, problems: Iterable[Problem]) -> None:
    """Raise everything that is wrong with a plan at once.

    Args:
        plan: the plan.
        where: what error messages call the data.
        problems: those of the rows that do not fit the data; the plan has those of rows that could not be read.

    Raises:
        DataError: there are problems.
    """
    every = [*plan.problems, *problems]
    if every:
        count = counted(len(every), "problem")
        helps = dict.fromkeys(problem.help for problem in every if problem.help)
        raise DataError(
            itemized(f"{plan.where} does not fit {where}: {count}:", (problem.what for problem in every)),
            " ".join([*helps, _NEW_PLAN]),
        )


def recipe_fixes(
    fix_plan: str, source: str | Path, changes: Mapping[str, object], resumed: RunDir | None = None
) -> FixPlan | None:
    """The plan of fixes that `data.fix_plan` of a recipe names; None without one.

    A run has its own copy, which is read when it is resumed, or when its recipe is used again: the file itself may be
    gone, or have changed.

    Args:
        fix_plan: the setting.
        source: name or file of the recipe, or directory of the run that it is of.
        changes: settings of the recipe that are replaced.
        resumed: the run that is resumed, if one is.

    Raises:
        DataError: it cannot be read.
    """
    if not fix_plan:
        return None
    if resumed is not None and resumed.fixes.is_file():
        return read_fix_plan(resumed.fixes)
    place = expand_home(source)
    run = RunDir(place if place.is_dir() else place.parent)
    is_run = place in (run.path, run.recipe) and run.recipe.is_file() and run.split.is_file()
    if is_run and run.fixes.is_file() and "data.fix_plan" not in changes:
        return read_fix_plan(run.fixes)
    return read_fix_plan(Path(fix_plan))
