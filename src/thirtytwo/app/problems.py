"""Why an image cannot be used, in words for people who use the app and have set nothing up."""

from __future__ import annotations

from thirtytwo.images.open import TOO_LARGE, max_pixels

_TOO_LARGE = "Save or send it smaller, with at most {:,.0f} megapixels, and add it again."


def plain(problem: str) -> str:
    """A problem without advice on the environment of the app, which its users cannot change."""
    start, found, _ = problem.partition(TOO_LARGE)
    return f"{start}{_advice()}" if found else problem


def short(problem: str) -> str:
    """A problem in two or three words, for a thumbnail."""
    return "too large" if problem.endswith(_advice()) else "cannot be read"


def _advice() -> str:
    return _TOO_LARGE.format(max_pixels() / 1e6)
