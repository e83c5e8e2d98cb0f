"""Paths as people enter them, and the chooser of folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library
from thirtytwo.app.folder_field import entered, list_folders
from thirtytwo.app.jobs import JobStore, jobs_dir
from thirtytwo.app.settings import AppSettings
from thirtytwo.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (' "/home/me/my pets" ', "/home/me/my pets"),
        ("'/home/me/pets'", "/home/me/pets"),
        ("“/home/me/pets”", "/home/me/pets"),
        ("file:///home/me/my%20pets", "/home/me/my pets"),
        ("cifar10", "cifar10"),
        ("it's", "it's"),
        ('"', '"'),
    ],
)
def test_what_copying_adds_is_left_out(text: str, expected: str) -> None:
    assert entered(text) == expected


def test_spaces_that_a_terminal_escapes(tmp_path: Path) -> None:
    (tmp_path / "my pets").mkdir()
    assert entered(f"{tmp_path}/my\\ pets") == str(tmp_path / "my pets")


@pytest.mark.skipif(sys.platform == "win32", reason="these are paths there")
@pytest.mark.parametrize("text", ["C:\\Users\\me\\pets", '"D:/pets"', "\\\\server\\pets"])
def test_a_path_of_windows_elsewhere_is_explained_with_single_backslashes(text: str) -> None:
    with pytest.raises(InputError) as caught:
        entered(text)
    assert caught.value.message.startswith(text.strip('"'))
    assert "is a path of Windows, but the app runs on" in caught.value.message


def page(home: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))

    def script() -> None:
        import streamlit as st

        from thirtytwo.app.folder_field import show_chooser

        st.text_input("Folder", key="folder")
        show_chooser("folder")

    found = AppTest.from_function(script, default_timeout=60).run()
    assert not found.exception
    return found


def test_a_folder_is_chosen_among_those_of_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/pets", "a10", "a2", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    assert list_folders(tmp_path) == ["a2", "a10", "b"]
    found = page(tmp_path, monkeypatch)
    found.selectbox(key=f"folder-inside-{tmp_path}").set_value("b").run()
    found.selectbox(key=f"folder-inside-{tmp_path / 'b'}").set_value("pets").run()
    found.button(key="folder-use").click().run()
    assert found.text_input(key="folder").value == str(tmp_path / "b" / "pets")
    found.button(key="folder-up").click().run()
    found.button(key="folder-use").click().run()
    assert found.text_input(key="folder").value == str(tmp_path / "b")


def test_folders_that_were_used_before_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pets").mkdir()
    store = JobStore(jobs_dir(), start_process=lambda arguments, log: 0)
    for data in (str(tmp_path / "gone"), str(tmp_path / "pets"), "cifar10"):
        store.start(data, [], tmp_path / "run")
    found = page(tmp_path, monkeypatch)
    assert [str(one.key) for one in found.button if "recent" in str(one.key)] == ["folder-recent-0"]
    found.button(key="folder-recent-0").click().run()
    assert found.text_input(key="folder").value == str(tmp_path / "pets")


def test_users_of_other_computers_see_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "settings", AppSettings(host="0.0.0.0"))
    assert not page(tmp_path, monkeypatch).button


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_folders_whose_names_are_no_text_do_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pets", os.fsdecode(b"na\xefve")):
        (tmp_path / name).mkdir()
    assert list_folders(tmp_path) == ["pets"]
    found = page(tmp_path, monkeypatch)
    assert found.selectbox(key=f"folder-inside-{tmp_path}").options == ["pets"]
