"""JPEG files: the scale at which they are decoded, and the memory that their decoder needs besides the pixels."""

from __future__ import annotations

SCALES = ((8, 2.0), (4, 2.0), (2, 1.3))
"""Factors by which the sides of a JPEG are divided when it is decoded, and how many times the size that is needed must
remain of the shorter side. Decoders average blocks of pixels, so that a square is resized from them almost as from the
whole: `benchmarks/draft.py` measures the difference. Below 1/2 little time is left to save, so more must remain."""
ANY_JPEG = 8.0
"""Most bytes per pixel that the coefficients of a JPEG take."""


def draft_scale(width: int, height: int, size: int) -> int:
    """Factor by which the sides of a JPEG are divided when it is decoded for a square of `size`: 1, 2, 4 or 8."""
    shorter = min(width, height)
    return next((scale for scale, factor in SCALES if shorter >= scale * factor * size), 1)


def coefficient_bytes(data: bytes) -> float:
    """Bytes per pixel of the coefficients that libjpeg keeps for the whole image; 0 where it decodes row by row.

    It keeps them where no single scan contains all data of a pixel: in progressive files (ITU T.81, SOF2, 6, 10 and
    14), and in sequential ones whose first scan lacks a component. Files that cannot be parsed count as the worst case.
    """
    at, kept, components, progressive = 2, ANY_JPEG, 0, True
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            at += 1  # padding or stray bytes: decoders also search for the next marker
            continue
        marker = data[at + 1]
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
                return ANY_JPEG
            components, progressive = body[5], marker in (0xC2, 0xC6, 0xCA, 0xCE)
            sampling = [(factors >> 4, factors & 15) for factors in body[7 : 6 + 3 * components : 3]]
            most = max(across for across, _ in sampling) * max(down for _, down in sampling)
            kept = 2 * sum(across * down for across, down in sampling) / most if most else ANY_JPEG
        elif marker == 0xDA:
            return kept if progressive or not body or body[0] < components else 0.0
        at += 2 + max(length, 2)
    return ANY_JPEG
