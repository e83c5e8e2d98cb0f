"""Why an image cannot be used, in words for people who use the app and have set nothing up."""

from __future__ import annotations

import re

from thirtytwo.images.open import MAX_PIXELS_VARIABLE, TOO_LARGE, max_pixels

_ADVICE = re.compile(rf"{re.escape(TOO_LARGE)}{MAX_PIXELS_VARIABLE}=\d+")
_ADDED = "Save or send it smaller, with at most {}, and add it again."
_OWN = "Save it smaller, with at most {}, and try again."


def plain(problem: str, *, added: bool = True) -> str:
    """A problem without advice on the environment of the app, which its users cannot change.

    Args:
        problem: what is wrong, and what to do.
        added: whether the image was added to a page; else it is a file of a data set.
    """
    return _ADVICE.sub(_filled(_ADDED if added else _OWN), problem)


def short(problem: str) -> str:
    """A problem in two or three words, for a thumbnail."""
    return "too large" if problem.endswith(_filled(_ADDED)) else "cannot be read"


def _filled(advice: str) -> str:
    return advice.format(f"{max_pixels() / 1e6:,.0f} megapixels")
