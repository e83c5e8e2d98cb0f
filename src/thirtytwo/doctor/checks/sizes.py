"""T411 to T414: sizes of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from thirtytwo.data.explore import HOW_TO_KEEP_ENDS, cut_ends
from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject

LONG_SIDE_RATIO = 2.0


@CHECKS.register("T411")
class Sizes(Check):
    """The sizes of all images."""

    code = "T411"
    title = "image sizes"
    severity = "note"
    why = "All images are resized to one size for training."
    fix = ""

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The smallest and largest width and height are stated."""
        sizes, side = subject.data.sizes, subject.side
        if not sizes:
            return
        widths, heights = zip(*sizes, strict=True)
        checked = f"checked at {side}×{side}. The recipe sets the size for training."
        if len(sizes) == 1:
            yield self.finding(
                f"All images have {widths[0]}×{heights[0]} pixels; {checked}", images=sum(sizes.values())
            )
        else:
            yield self.finding(
                f"Images are {_range(widths)} pixels wide and {_range(heights)} high; {checked}",
                images=sum(sizes.values()),
            )


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"


@CHECKS.register("T412")
class Enlarged(Check):
    """Images that are smaller than the decoded size."""

    code = "T412"
    title = "images that are enlarged"
    severity = "note"
    why = "They are blurred beside the others, which a network may learn as a property of their class."
    fix = ""

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Images whose shorter side is below the decoded size are counted, unless all are."""
        sizes, side = subject.data.sizes, subject.side
        total = sum(sizes.values())
        small = sum(count for size, count in sizes.items() if min(size) < side)
        are = "is" if small == 1 else "are"
        if small and small < total:
            yield self.finding(
                f"{small:,} of {total:,} images {are} smaller than {side}×{side} and {are} enlarged.",
                images=small,
            )


@CHECKS.register("T413")
class LongImages(Check):
    """Images that are much longer than wide, or wider than long."""

    code = "T413"
    title = "elongated images"
    severity = "warning"
    why = "Square networks see them cut off or distorted."
    fix = "A central crop discards most of such an image; try --set data.resize=pad."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Images with an aspect ratio above `LONG_SIDE_RATIO` are counted."""
        sizes = subject.data.sizes
        long = sum(count for size, count in sizes.items() if max(size) > LONG_SIDE_RATIO * min(size))
        have = "has" if long == 1 else "have"
        if long:
            yield self.finding(
                f"{long:,} of {sum(sizes.values()):,} images {have} an aspect ratio above {LONG_SIDE_RATIO:g}.",
                images=long,
            )


@CHECKS.register("T414")
class CutOff(Check):
    """Images whose ends a central crop cuts off."""

    code = "T414"
    title = "ends that are cut off"
    severity = "note"
    why = "These checks look at the central square of each image, and so do networks trained with data.resize=crop."
    fix = f"Look whether the ends matter. {HOW_TO_KEEP_ENDS}"

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Images of which a central crop cuts off more than a little of the longer side are counted."""
        found = cut_ends(subject.data.sizes)
        if found is not None:
            yield self.finding(str(found), images=found.images)
