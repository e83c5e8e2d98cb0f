"""Projects on disk: changes of several sessions, damaged files, and files of removed images."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app.project import Photo, Project
from thirtytwo.app.project_store import ProjectStore, projects_dir
from thirtytwo.errors import InputError, RunError
from thirtytwo.io import lock_directory


@pytest.fixture
def store(tmp_path: Path) -> ProjectStore:
    return ProjectStore.open(tmp_path / "projects")


def test_a_project_is_read_as_it_was_written(store: ProjectStore, paint: Callable[..., bytes]) -> None:
    identity = store.create().identity
    store.change(identity, lambda project: project.rename(1, "  red  cars ").with_base("imagenet"))
    files = [("a.png", paint("red")), ("a.png", paint("blue")), ("b.png", paint("red")), ("c.jpg", b"\xff\xd8 no")]
    store.add_photos(identity, 1, files)
    found = ProjectStore.open(store.folder).read(identity)
    assert (found.classes[0].name, found.base) == ("red cars", "imagenet")
    assert [photo.name for photo in found.classes[0].photos] == ["a.png", "a-2.png", "c.jpg"], "the same image once"
    assert [bool(photo.problem) for photo in found.classes[0].photos] == [False, False, True]
    assert "c.jpg" in found.classes[0].photos[2].problem
    assert len(found.classes[0].readable) == 2
    image = store.image(identity, found.classes[0].photos[0])
    assert image.path.read_bytes() == paint("red")
    assert image.thumbnail.startswith(b"\xff\xd8")
    assert [one.identity for one in store.all()] == [identity]


def test_changes_of_several_sessions_are_all_kept(store: ProjectStore) -> None:
    identity = store.create().identity
    problems: list[Exception] = []

    def session(number: int) -> None:
        own = ProjectStore.open(store.folder)  # as another process would
        try:
            for place in range(5):
                photo = Photo(name=f"{number}-{place}.png", digest=f"{number}-{place}", suffix=".png")
                own.change(identity, lambda project, photo=photo: project.with_photos(1, [photo]))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=session, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(store.read(identity).classes[0].photos) == 20


def test_a_lock_is_waited_for_a_limited_time(tmp_path: Path) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock_directory(tmp_path):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    with pytest.raises(RunError), lock_directory(tmp_path, wait=0.1):
        pass
    threading.Timer(0.1, done.set).start()
    with lock_directory(tmp_path, wait=10):
        pass
    thread.join()


@pytest.mark.parametrize("identity", ["", "../../etc", "0123456789abcdef/..", "0123456789ABCDEF", "0123456789abcdef"])
def test_a_name_from_an_address_opens_projects_only(store: ProjectStore, identity: str) -> None:
    with pytest.raises(InputError):
        store.read(identity)
    with pytest.raises(InputError):
        store.change(identity, Project.with_class)
    store.delete(identity)


def test_images_for_a_class_that_another_tab_removed_are_refused(
    store: ProjectStore, paint: Callable[..., bytes]
) -> None:
    identity = store.create().identity
    store.change(identity, lambda project: project.without_class(2))
    with pytest.raises(InputError, match="another tab"):
        store.add_photos(identity, 2, [("a.png", paint("red"))])
    assert store.read(identity).classes[0].photos == ()


def test_images_added_while_another_tab_deletes_the_project_leave_nothing(
    store: ProjectStore, paint: Callable[..., bytes]
) -> None:
    identity = store.create().identity
    folder = store.folder / identity
    problems: list[Exception] = []

    def add() -> None:
        try:
            store.add_photos(identity, 1, [("a.png", paint("red"))])
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=add)
    with lock_directory(folder):
        thread.start()
        time.sleep(0.5)  # until it waits for the lock
        (folder / "project.json").unlink()
    thread.join()
    assert [type(one) for one in problems] == [InputError]
    assert not list(folder.glob("photos/*"))


def test_a_damaged_project_is_an_error_and_hides_no_other(store: ProjectStore) -> None:
    damaged, sound = store.create().identity, store.create().identity
    (store.folder / damaged / "project.json").write_text('{"identity"')
    with pytest.raises(InputError, match="damaged"):
        store.read(damaged)
    assert [one.identity for one in store.all()] == [sound]
    store.delete(sound)
    assert store.all() == []


def test_a_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = ProjectStore.open(tmp_path / "file" / "projects")
    assert not found.kept
    assert found.read(found.create().identity).classes


def test_files_of_removed_images_are_deleted_after_a_day(
    store: ProjectStore, paint: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = store.create().identity
    project = store.add_photos(identity, 1, [("a.png", paint("red")), ("b.png", paint("blue"))])
    kept, gone = project.classes[0].photos
    week_ago = time.time() - 7 * 86_400
    for photo in (kept, gone):
        os.utime(store.image(identity, photo).path, (week_ago, week_ago))
    store.change(identity, lambda one: one.without_photos(1, [gone.digest]))
    store.delete_unused(identity)
    assert store.image(identity, gone).path.is_file(), "removing can be undone"
    monkeypatch.setattr("thirtytwo.app.project_store._KEPT_SECONDS", -1.0)
    store.delete_unused(identity)
    assert store.image(identity, kept).path.is_file()
    assert not store.image(identity, gone).path.exists()


def test_projects_are_in_the_folder_of_user_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THIRTYTWO_PROJECTS", str(tmp_path))
    assert projects_dir() == tmp_path
    monkeypatch.setenv("THIRTYTWO_PROJECTS", "~nobody-has-this-name/projects")
    assert projects_dir().name == "projects"
    monkeypatch.delenv("THIRTYTWO_PROJECTS")
    assert projects_dir().parts[-2:] == ("thirtytwo", "projects")


@pytest.mark.slow
def test_undoing_that_failed_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thirtytwo.app.project_store._LOCK_SECONDS", 0.1)

    def script() -> None:
        import threading

        import streamlit as st

        from thirtytwo.app import session
        from thirtytwo.app.library import projects
        from thirtytwo.app.project import Photo
        from thirtytwo.io import lock_directory

        photo = Photo(name="a.png", digest="a" * 24, suffix=".png")
        identity = projects().create().identity
        session.open_project(identity)
        projects().change(identity, lambda found: found.with_photos(1, [photo]))
        session.remove_photos(1, [photo])
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with lock_directory(projects().folder / identity):
                held.set()
                done.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        session.undo()
        done.set()
        thread.join()
        st.text(session.lost())
        st.text(len(session.current().classes[0].photos))
        session.undo()
        st.text(len(session.current().classes[0].photos))

    page = AppTest.from_function(script, default_timeout=60).run()
    assert not page.exception
    lost, before, after = (one.value for one in page.text)
    assert "in use" in lost
    assert (before, after) == ("0", "1")


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_undoing_a_move_leaves_the_other_class_as_it_was(kept: bool) -> None:
    def script(kept: bool) -> None:
        import streamlit as st

        from thirtytwo.app import session
        from thirtytwo.app.library import projects
        from thirtytwo.app.project import Photo

        one, two, later = (Photo(name=f"{name}.png", digest=name * 64, suffix=".png") for name in "abc")
        identity = projects().create().identity
        session.open_project(identity)
        projects().change(identity, lambda found: found.with_photos(1, [one, two]).with_photos(2, [one] * kept))
        session.move_photo(one, 1, 2)
        projects().change(identity, lambda found: found.with_photos(2, [later]))
        session.open_project("")
        session.open_project(identity)  # what can be undone is kept meanwhile
        session.undo()
        st.text(" ".join("".join(sorted(p.digest[0] for p in c.photos)) for c in session.current().classes))

    page = AppTest.from_function(script, default_timeout=60, args=(kept,)).run()
    assert not page.exception
    assert page.text[0].value == ("ab ac" if kept else "ab c")


@pytest.mark.parametrize("way", ["class", "named class", "trials"])
def test_images_that_a_click_interrupted_are_not_said_to_be_there_already(
    way: str, paint: Callable[..., bytes]
) -> None:
    def script(way: str, data: bytes) -> None:
        from functools import partial

        import streamlit as st
        from streamlit.runtime.scriptrunner import get_script_run_ctx

        from thirtytwo.app import session
        from thirtytwo.app.library import projects

        class Click(BaseException):
            """What ends a run of the script where the state of the session is read."""

        identity = projects().create().identity
        session.open_project(identity)
        place = session.target()
        add = {
            "class": partial(session.add_photos, place, 1),
            "named class": partial(session.add_class_photos, place, "sun"),
            "trials": partial(session.add_trials, place),
        }[way]
        context = get_script_run_ctx()
        assert context is not None
        going_on = context.session_state._yield_callback

        def click() -> None:
            found = projects().read(identity)
            if found.trials or any(one.photos for one in found.classes):
                raise Click

        files = [("a.png", data)]
        object.__setattr__(context.session_state, "_yield_callback", click)
        try:
            add(files)
        except Click:
            add_again = True
        else:
            add_again = False
        finally:
            object.__setattr__(context.session_state, "_yield_callback", going_on)
        if add_again:
            add(files)
        st.text(len(session.repeated(session.TRIALS if way == "trials" else 1)))

    page = AppTest.from_function(script, default_timeout=60, args=(way, paint("red"))).run()
    assert not page.exception
    assert page.text[0].value == "0"
