from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from thirtytwo import registry
from thirtytwo.errors import ThirtytwoError, UnknownNameError
from thirtytwo.registry import Registry


@pytest.fixture
def table() -> Registry[int]:
    table: Registry[int] = Registry("data set")
    table.register("digits")(1)
    table.register("cifar10")(2)
    return table


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two entry points of another package, one of them broken; returns the requested groups."""
    asked: list[str] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [
            EntryPoint("pi", "math:pi", group),
            EntryPoint("broken", "no_such_package:row", group),
            EntryPoint("digits", "math:e", group),
        ]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return asked


def test_rows_are_found_listed_and_iterated(table: Registry[int]) -> None:
    assert table.get("digits") == 1
    assert table.names() == list(table) == ["cifar10", "digits"]
    assert "digits" in table
    assert "mnist" not in table


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar1", "Unknown data set 'cifar1'. Did you mean 'cifar10'?"),
        ("xyz", "Unknown data set 'xyz'. Known: cifar10, digits."),
    ],
)
def test_unknown_name(table: Registry[int], name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        table.get(name)
    assert str(caught.value) == message


def test_a_name_twice_is_a_bug(table: Registry[int]) -> None:
    with pytest.raises(ValueError, match="'digits' is registered twice"):
        table.register("digits")(3)


def test_other_packages_add_rows(table: Registry[float], outside: list[str]) -> None:
    assert table.names() == ["broken", "cifar10", "digits", "pi"]
    assert table.get("pi") == pytest.approx(3.14159, abs=1e-5)
    assert table.get("digits") == 1, "our own row wins"
    assert outside == ["thirtytwo.data_sets"], "looked up once"


def test_a_broken_package_hurts_only_its_own_row(table: Registry[int], outside: list[str]) -> None:
    assert table.get("cifar10") == 2
    with pytest.raises(ThirtytwoError, match="'broken'") as caught:
        table.get("broken")
    assert caught.value.fix is not None
