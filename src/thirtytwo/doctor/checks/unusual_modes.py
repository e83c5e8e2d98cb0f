"""T204: images whose pixels are stored in an unusual way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding, Place
from thirtytwo.doctor.subject import Subject
from thirtytwo.images.header import FileFacts

MOST = 0.5
"""A mode is unusual where at most this share of the images has it."""
_GRAY = frozenset({"1", "L", "LA"})


@CHECKS.register("T204")
class UnusualModes(Check):
    """CMYK, more than 8 bits per channel, transparency, and gray images among color ones."""

    code = "T204"
    title = "images with an unusual color mode"
    severity = "note"
    why = (
        "They are converted to 8-bit RGB here; other programs may convert them differently, and their colors differ "
        "from those of the rest."
    )
    fix = "Compare them with the others, and save them as 8-bit RGB if they look different."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The images are sorted by the mode that their files state; a mode that most images have is usual."""
        kinds: dict[tuple[str, str], list[Place]] = defaultdict(list)
        placed = subject.placed_facts
        for place, facts in placed:
            if kind := _kind(facts):
                kinds[kind].append(place)
        for kind, places in kinds.items():
            if len(places) <= MOST * len(placed):
                shown = ", ".join(map(subject.name_of, places[:3]))
                yield self.finding(
                    f"{len(places):,} of {len(placed):,} images {kind[len(places) > 1]}: {shown}.",
                    [(place,) for place in places],
                )


def _kind(facts: FileFacts) -> tuple[str, str] | None:
    """What is unusual about an image, as the end of a sentence on one and on several; None for 8-bit RGB."""
    if facts.mode == "CMYK":
        return _of_one_and_several("{are} CMYK, meant for printing")
    if facts.mode in ("LAB", "HSV"):
        return _of_one_and_several(f"{{are}} in the color space {facts.mode}")
    if facts.mode.startswith(("I", "F")):
        return _of_one_and_several("{have} more than 8 bits per pixel, and {are} scaled to 8")
    if facts.transparent:
        return _of_one_and_several("{are} partly transparent, and {are} put on white")
    return _of_one_and_several("{are} gray among color images") if facts.mode in _GRAY else None


def _of_one_and_several(words: str) -> tuple[str, str]:
    return words.format(are="is", have="has"), words.format(are="are", have="have")
