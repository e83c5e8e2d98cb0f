"""Decisions on suggested fixes, kept in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from thirtytwo.app import decisions
from thirtytwo.app.decisions import Decisions, DecisionStore, identity_of
from thirtytwo.errors import InputError


def checked(number: int, decided: dict[str, bool]) -> Decisions:
    found = Decisions(identity=identity_of(f"folder {number}"), spec="digits", place="", changed=float(number))
    return found.model_copy(update={"decided": decided})


def test_decisions_of_data_that_another_tab_forgot_are_refused(tmp_path: Path) -> None:
    store, own = DecisionStore(tmp_path), checked(0, {})
    store.put(own)
    store.decide(own.identity, {"a": True})
    store.forget(own.identity)
    with pytest.raises(InputError):
        store.decide(own.identity, {"b": True})


def test_decisions_outlive_checks_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_KEPT", 3)
    store = DecisionStore(tmp_path)
    own = checked(0, {"a": True})
    store.put(own)
    for number in range(1, 8):
        store.put(checked(number, {}))
    kept = store.all()
    assert len(kept) == 3
    assert own.identity in {one.identity for one in kept}
    assert checked(7, {}).identity in {one.identity for one in kept}
