"""Results of many images: which of them to show, in which order, and how many there are of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from thirtytwo.app.certainty import certainty
from thirtytwo.app.display import Result
from thirtytwo.images.discover import natural_key
from thirtytwo.inference.classifier import Prediction
from thirtytwo.text import percent, readable

ALL, KNOWN, UNSURE, UNKNOWN, UNREADABLE = "All", "Sure", "Not sure", "Unknown", "Unreadable"
"""What to show."""
ADDED, SUREST, LEAST_SURE, BY_NAME, BY_CLASS = (
    "Latest upload first",
    "Most confident first",
    "Least confident first",
    "File name",
    "Class",
)
ORDERS = (ADDED, SUREST, LEAST_SURE, BY_NAME, BY_CLASS)


@dataclass(frozen=True)
class Criteria:
    """Which results to show: their kind, their top class (None: any), confidence from `least` to `most`, and order."""

    kind: str = ALL
    label: str | None = None
    least: float = 0.0
    most: float = 1.0
    order: str = ADDED

    @property
    def narrows(self) -> bool:
        """Whether some results may be left out."""
        return (self.kind, self.label, self.least, self.most) != (ALL, None, 0.0, 1.0)


def answer(result: Prediction) -> str:
    """The answer in a line: `sweet pepper, 93.1 %`, and whether the image is unknown or the model not sure."""
    kind = kind_of(result)
    doubt = f", {kind.lower()}" if kind in (UNKNOWN, UNSURE) else ""
    return f"{readable(result.top)}, {percent(result.confidence)}{doubt}"


def kind_of(result: Result) -> str:
    """Whether the model is sure of an image, not sure, whether it is unknown, or cannot be read."""
    if not isinstance(result, Prediction):
        return UNREADABLE
    return {"sure": KNOWN, "not sure": UNSURE, "unknown": UNKNOWN}[certainty(result)]


def matching(results: Sequence[Result], criteria: Criteria) -> list[int]:
    """Positions of the results that match, in order; images that cannot be read come last by class or confidence."""
    found = [place for place, result in enumerate(results) if _matches(result, criteria)]
    if criteria.order == BY_NAME:
        return sorted(found, key=lambda place: natural_key(results[place].file or ""))
    if criteria.order == BY_CLASS:
        return sorted(found, key=lambda place: (_top(results[place]), -_confidence(results[place])))
    if criteria.order in (SUREST, LEAST_SURE):
        sign = -1.0 if criteria.order == SUREST else 1.0
        return sorted(
            found,
            key=lambda place: (not isinstance(results[place], Prediction), sign * _confidence(results[place])),
        )
    return found


def tally(results: Sequence[Result]) -> list[tuple[str, int]]:
    """Top classes and the number of known images of each, most first."""
    counts = Counter(one.top for one in results if isinstance(one, Prediction) and one.known)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0].casefold()))


def kinds(results: Sequence[Result]) -> dict[str, int]:
    """Number of results of each kind that occurs."""
    counts = Counter(map(kind_of, results))
    return {kind: counts[kind] for kind in (KNOWN, UNSURE, UNKNOWN, UNREADABLE) if counts[kind]}


def _matches(result: Result, criteria: Criteria) -> bool:
    if criteria.kind not in (ALL, kind_of(result)):
        return False
    if not isinstance(result, Prediction):
        return not criteria.narrows or criteria.kind == UNREADABLE
    return criteria.label in (None, result.top) and criteria.least <= result.confidence <= criteria.most


def _top(result: Result) -> tuple[bool, str]:
    """To sort by class; images that cannot be read come last."""
    return (False, result.top.casefold()) if isinstance(result, Prediction) else (True, "")


def _confidence(result: Result) -> float:
    return result.confidence if isinstance(result, Prediction) else 0.0
