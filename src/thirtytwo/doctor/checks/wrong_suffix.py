"""T203: files whose suffix is not that of their content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import listing

SUFFIXES: dict[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}),
    "PNG": frozenset({".png", ".apng"}),
    "WEBP": frozenset({".webp"}),
    "GIF": frozenset({".gif"}),
    "BMP": frozenset({".bmp", ".dib"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "AVIF": frozenset({".avif", ".avifs"}),
    "HEIF": frozenset({".heic", ".heif", ".heics", ".heifs", ".hif"}),
    "PPM": frozenset({".ppm", ".pgm", ".pbm", ".pnm"}),
}
"""Usual suffixes of each format."""
_KNOWN = frozenset().union(*SUFFIXES.values())


@CHECKS.register("T203")
class WrongSuffix(Check):
    """Files with the suffix of another image format than that of their content; other suffixes are not compared."""

    code = "T203"
    title = "files with the suffix of another format"
    severity = "note"
    why = (
        "They are read by their content here, but programs that go by the name refuse or misread them. "
        "They often have another source than the rest."
    )
    fix = "Rename them, or save them again in one format."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The suffix of every file is compared with the format that its first bytes have."""
        found = [
            (place, Path(subject.name_of(place)).suffix.lower(), facts.format) for place, facts in subject.placed_facts
        ]
        wrong = [
            (place, suffix, kind)
            for place, suffix, kind in found
            if suffix in _KNOWN and suffix not in SUFFIXES.get(kind, _KNOWN)
        ]
        if wrong:
            kinds = Counter((suffix, kind) for _, suffix, kind in wrong)
            summary = listing(
                (
                    f"{count} {suffix} that {'is' if count == 1 else 'are'} {kind}"
                    for (suffix, kind), count in kinds.most_common()
                ),
                quoted=False,
            )
            shown = ", ".join(subject.name_of(place) for place, *_ in wrong[:3])
            have = "has" if len(wrong) == 1 else "have"
            yield self.finding(
                f"{len(wrong)} of {len(found)} files {have} the suffix of another format ({summary}): {shown}.",
                [(place,) for place, *_ in wrong],
                notes=[f"{suffix} is {kind}" for _, suffix, kind in wrong],
            )
