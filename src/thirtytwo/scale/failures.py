"""Errors that users can fix, sent between processes of a cluster as text: Ray would add its own to exceptions."""

from __future__ import annotations

from typing import Any

from thirtytwo import errors
from thirtytwo.errors import ThirtytwoError

FIELDS = ("error", "message", "fix")


def as_failure(error: ThirtytwoError) -> dict[str, str]:
    """The name of an error's class, its message and its advice; empty where there is none."""
    return {"error": type(error).__name__, "message": error.message, "fix": error.fix or ""}


NO_FAILURE = dict.fromkeys(FIELDS, "")


def raise_failure(found: dict[str, Any]) -> None:
    """Raise the error that `as_failure` describes, if there is one."""
    if found["error"]:
        kind = getattr(errors, found["error"], ThirtytwoError)
        raise kind(found["message"], found["fix"] or None)
