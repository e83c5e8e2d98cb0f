"""The chosen model stays in use: in new pages, after a restart of the app, and for users of other computers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library
from thirtytwo.app.settings import AppSettings

Write = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None, finished_run: Write) -> Path:
    """A working directory with the runs `first` and `second`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setattr(library, "settings", AppSettings())
    for name in ("first", "second"):
        finished_run(tmp_path / "runs" / name)
    return tmp_path


def page(**address: str) -> AppTest:
    """A page in a new tab, where a model can be chosen."""

    def script() -> None:
        from thirtytwo.app import library
        from thirtytwo.app.components import choose_model

        library.keep_choice()
        choose_model()

    found = AppTest.from_function(script, default_timeout=60)
    for key, value in address.items():
        found.query_params[key] = value
    found.run()
    assert not found.exception
    return found


def chosen(found: AppTest) -> str:
    return str(found.selectbox[0].value)


def choose(found: AppTest, name: str) -> None:
    found.selectbox[0].set_value(name).run()
    assert not found.exception


def other_than(name: str) -> str:
    return next(one for one in ("first", "second") if one != name)


def test_the_chosen_model_stays_in_use_in_new_pages(place: Path) -> None:
    first = page()
    usual = chosen(first)
    choose(first, other_than(usual))
    for found in (page(), first.run()):
        assert chosen(found) == other_than(usual)
        assert not found.warning
    choose(page(), usual)
    assert chosen(page()) == usual


def test_models_named_at_the_start_come_before_the_one_of_an_earlier_start(
    place: Path, monkeypatch: pytest.MonkeyPatch, write_model: Write
) -> None:
    found = page()
    choose(found, other_than(chosen(found)))
    monkeypatch.setattr(library, "settings", AppSettings(models=(str(write_model(place / "given.onnx")),)))
    found = page()
    assert chosen(found) == "given"
    assert not found.warning
    choose(found, "first")
    assert chosen(page()) == "first"


def test_a_page_says_that_the_model_in_use_is_gone_and_which_one_is_used(place: Path) -> None:
    opened = page()
    usual = chosen(opened)
    wanted = other_than(usual)
    choose(opened, wanted)
    (place / "runs" / wanted).rename(place / "elsewhere")
    for found in (opened.run(), page()):
        assert chosen(found) == usual
        assert f"“{wanted}”" in found.warning[0].value
        assert f"“{usual}”" in found.warning[0].value
    assert not page().warning, "it is said once"
    (place / "elsewhere").rename(place / "runs" / wanted)
    assert opened.run().warning, "until a model is chosen"
    choose(opened, wanted)
    assert not opened.warning


def test_a_damaged_file_of_the_chosen_model_does_not_matter(place: Path) -> None:
    found = page()
    usual = chosen(found)
    choose(found, other_than(usual))
    (file,) = (place / "projects").glob("*.json")
    for content in ("", "[]", "{}", '{"path": 1}'):
        file.write_text(content)
        found = page()
        assert chosen(found) == usual
        assert not found.warning


def test_users_of_other_computers_keep_their_own_choice_in_the_address(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = chosen(page())
    monkeypatch.setattr(library, "settings", AppSettings(host="0.0.0.0"))
    found = page()
    choose(found, other_than(usual))
    assert found.query_params[library.QUERY] in (other_than(usual), [other_than(usual)])
    assert chosen(page(**{library.QUERY: other_than(usual)})) == other_than(usual)
    assert chosen(page()) == usual
    gone = page(**{library.QUERY: "gone"})
    assert chosen(gone) == usual
    assert "“gone”" in gone.warning[0].value
