"""The page Add classes: a project with a few images per class, which a linear probe is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import streamlit as st

from thirtytwo.app import manage, session
from thirtytwo.app.components import describe, image_grid, require_model, show_error, title
from thirtytwo.app.display import view
from thirtytwo.app.images import thumbnails, undo_button, upload_field
from thirtytwo.app.library import (
    Entry,
    entries,
    given_name,
    info_of,
    load_classifier,
    project_name,
    projects,
    taught_entry,
)
from thirtytwo.app.names import MAX_NAME
from thirtytwo.app.pager import Pager
from thirtytwo.app.problems import explained, problem_of_added
from thirtytwo.app.project import Photo, PhotoClass, Project
from thirtytwo.app.project_checks import (
    RELIABLE,
    changes_since,
    missing_input,
    photo_counts,
    repeated_sentence,
    shared_sentence,
)
from thirtytwo.app.project_store import projects_dir
from thirtytwo.app.taught_result import result_of
from thirtytwo.app.views.taught import show_result
from thirtytwo.app.views.teach_input import FOLDER, show_ways
from thirtytwo.doctor.near_duplicates import find_alike
from thirtytwo.errors import ImageError, ModelFileError, ThirtytwoError
from thirtytwo.fewshot import LEAST, RESIZE, choose_base, fit_linear_probe
from thirtytwo.images.decode import load_image
from thirtytwo.images.header import read_size
from thirtytwo.images.pixels import Pixels, ResizeRule
from thirtytwo.text import as_markdown, capitalized, counted

WHICH_PAGE = (
    "This page or Train? Use this page for up to 200 images of each class: it needs no preparation. With more images, "
    "or if its accuracy is not enough, use Train: it takes minutes to hours, and measures the accuracy on images that "
    "it set aside."
)
_AUTOMATIC = "Chosen by the size of the images"
_BASE, _PROBLEM = "base", "problem of the name"
_PER_PAGE = 20
"""Number of projects that are listed at a time."""
_MAX_UNREADABLE = 5


def show() -> None:
    """Show the page."""
    title(
        "Add classes from a few images",
        "Name two or more classes and add images of each, better 20 to 50 than 5. The app then learns them on top of a "
        "model that it has, which takes seconds. No data leaves this computer.",
    )
    st.caption(WHICH_PAGE)
    if not entries():
        require_model()
    project = session.current()
    with st.container():  # so that what is below keeps its place, and with it a running camera and what is typed
        _show_problem()
        _show_projects(project)
        base = _choose_base(project)
    show_ways()
    for position, one in enumerate(project.classes, start=1):
        _class_input(project, one, position)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Add a class", icon=":material/add:", on_click=session.add_class)
        if undoable := session.undoable():
            undo_button(undoable, "undo-project", session.undo)
    _show_shared(project, project.shared)
    missing = missing_input(project)
    if missing:
        st.info(as_markdown(f"Next: {'; '.join(missing)}."), icon=":material/checklist:")
    if st.button("Train", type="primary", disabled=bool(missing), icon=":material/school:"):
        _train_probe(base, project)
    if project.result is not None and projects().model(project.identity).is_file():
        show_result(project, project.result, changes_since(project, base.name))


def _show_problem() -> None:
    for problem in filter(None, (session.lost(), st.session_state.pop(_PROBLEM, ""))):
        st.error(as_markdown(problem), icon=":material/error:")
    if not projects().kept:
        st.warning(
            as_markdown(
                f"This project is lost when the app stops, because the folder {projects_dir()} cannot be written. "
                "Allow this user to write there, or make room, and start the app again."
            ),
            icon=":material/save:",
        )


def _show_projects(project: Project) -> None:
    """Show which project is open, and the others to open instead."""
    others = session.others()
    if project.identity:
        where = "Saved on this computer" if projects().kept else "Not saved"
        with st.container(horizontal=True, vertical_alignment="bottom", key="project"):
            st.caption(as_markdown(f"Project: {_label(project)} · {where}"), width="stretch")
            _name_project(project)
            st.button("New project", key="project-new", icon=":material/note_add:", on_click=_open, args=("",))
            st.button("Delete", key="project-delete", icon=":material/delete:", on_click=_ask_before_deleting)
        if st.session_state.get("project-deleting"):
            with st.container(border=True, horizontal=True, vertical_alignment="center"):
                st.markdown(as_markdown(_question(project)), width="stretch")
                st.button("Delete it", key="project-delete-yes", type="primary", on_click=_delete)
                st.button("Keep it", key="project-delete-no", on_click=_keep)
    if others:
        with st.expander(f"Open another project ({len(others)})", expanded=not project.identity):
            pager = Pager(len(others), _PER_PAGE, f"projects-page-{len(others)}")
            for other in others[pager.show()]:
                key = f"project-open-{other.identity}"
                st.button(as_markdown(_label(other)), key=key, on_click=_open, args=(other.identity,), width="stretch")


def _label(project: Project) -> str:
    images = ", ".join(photo_counts(project.photos))
    when = datetime.fromtimestamp(project.changed).strftime("%Y-%m-%d %H:%M")
    trained = "" if project.result is None else " · trained"
    return f"{project_name(project) or 'without names'} · {images}{trained} · {when}"


def _question(project: Project) -> str:
    """What deleting a project deletes, as a question that names it."""
    name = project_name(project)
    images = " and ".join(photo_counts(project.photos))
    model = "" if project.result is None else " and its model"
    return f"Delete the project {f'“{name}”' if name else 'without names'} with its {images}{model}?"


def _name_project(project: Project) -> None:
    """Show a field for the name of a project, which its model has, too."""
    key = f"project-name-{project.identity}"
    name = given_name(project)
    if st.session_state.get(key) != name:
        st.session_state[key] = name

    def rename() -> None:
        entry = taught_entry(project)
        try:
            if entry is None:
                session.rename_project(st.session_state[key])
            else:
                manage.rename(entry, st.session_state[key])
        except ThirtytwoError as error:
            st.session_state[_PROBLEM] = explained(error)

    st.text_input(
        "Name of the project",
        key=key,
        placeholder=project_name(project) or "by its classes",
        max_chars=MAX_NAME,
        on_change=rename,
        width=260,
        help="Its model has the same name on the other pages. Without one, both are named by the classes.",
    )


def _open(identity: str) -> None:
    _keep()
    session.open_project(identity)


def _ask_before_deleting() -> None:
    st.session_state["project-deleting"] = True


def _keep() -> None:
    st.session_state.pop("project-deleting", None)


def _delete() -> None:
    _keep()
    session.delete_project()


def _choose_base(project: Project) -> Entry:
    """Show the selection of the model to start from, by default the one that suits the size of the images."""
    found = entries()
    names = [entry.name for entry in found]
    wanted = project.base if project.base in names else _AUTOMATIC
    if st.session_state.get(_BASE) != wanted:
        st.session_state[_BASE] = wanted

    def choose() -> None:
        session.set_base(None if st.session_state[_BASE] == _AUTOMATIC else st.session_state[_BASE])

    chosen = st.selectbox("Start from", [_AUTOMATIC, *names], key=_BASE, on_change=choose)
    if chosen != _AUTOMATIC:
        entry = found[names.index(chosen)]
        st.caption(describe(info_of(entry)))
        return entry
    entry, reason = _automatic_base(found, project)
    st.caption(f"{as_markdown(entry.name)}: {describe(info_of(entry))}")
    if reason:
        st.caption(as_markdown(f"{capitalized(reason)}."))
    return entry


def _automatic_base(found: Sequence[Entry], project: Project) -> tuple[Entry, str]:
    """The model that suits the size of the images, and why, if there are images."""
    sides = _sides(project)
    try:
        wanted, reason = choose_base(None, sides)
    except ModelFileError:  # neither bundled models nor runs
        return found[0], ""
    default = next((one for one in found if one.path.resolve() == wanted.resolve()), None)
    return (found[0], "") if default is None else (default, reason if sides else "")


def _sides(project: Project) -> list[int]:
    """Shorter side, in pixels, of each image that can be read."""
    images = (projects().image(project.identity, photo) for one in project.classes for photo in one.readable)
    return [_side(image.path) for image in images if image.path.is_file()]


@st.cache_data(show_spinner=False, max_entries=10_000)
def _side(path: Path) -> int:
    return min(read_size(path))


def _class_input(project: Project, one: PhotoClass, position: int) -> None:
    """Show the input of one class: its name and its images."""
    with st.container(border=True, key=f"group-{one.number}"):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            _name_input(one, position)
            if len(project.classes) > 2:
                st.button(
                    "Remove",
                    key=f"remove-{one.number}",
                    icon=":material/delete:",
                    on_click=session.remove_class,
                    args=(one.number,),
                )
        label = f"Images of {one.name or f'class {position}'}"
        place = session.target()
        receive = partial(session.add_photos, place, one.number)
        upload_field(label, f"group-files-{one.number}", receive, project=place, zip_field=FOLDER)
        _show_images(project, one)


def _name_input(one: PhotoClass, position: int) -> None:
    key = f"name-{one.number}"
    if st.session_state.get(key) != one.name:  # else a name that is being typed would be lost
        st.session_state[key] = one.name

    def rename() -> None:
        session.rename_class(one.number, st.session_state[key])

    example = ("my cat", "the neighbour's cat")[position - 1] if position <= 2 else "another"
    st.text_input(f"Name of class {position}", key=key, placeholder=example, on_change=rename)


def _show_images(project: Project, one: PhotoClass) -> None:
    """Show the thumbnails of a class, how many images it has, and which cannot be read or are there already."""
    if again := session.repeated(one.number):
        st.info(as_markdown(repeated_sentence(again)), icon=":material/content_copy:")
    if not one.photos:
        return
    by_digest = {photo.digest: photo for photo in one.photos}
    images = [projects().image(project.identity, photo) for photo in one.photos]

    def remove(digest: str) -> None:
        if digest in by_digest:
            session.remove_photos(one.number, [by_digest[digest]])

    def move(digest: str, target: int) -> None:
        if digest in by_digest:
            session.move_photo(by_digest[digest], one.number, target)

    targets = [
        (other.number, other.name or f"class {position}")
        for position, other in enumerate(project.classes, start=1)
        if other.number != one.number
    ]
    thumbnails(images, f"class-{one.number}", remove, targets=targets, move=move, undo="undo-project")
    unreadable = [photo for photo in one.photos if photo.problem]
    for photo in unreadable[:_MAX_UNREADABLE]:
        text = f"Not used in “{project.class_name(one.number)}”: {problem_of_added(photo.problem)}"
        st.warning(as_markdown(text), icon=":material/broken_image:")
    if len(unreadable) > _MAX_UNREADABLE:
        st.warning(f"{len(unreadable) - _MAX_UNREADABLE} more files cannot be read.")
    count = len(one.readable)
    missing = f"; {LEAST - count} more needed" if count < LEAST else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{counted(count, 'image')}{missing}", width="content")
        st.button(
            "Remove all images",
            key=f"clear-{one.number}",
            type="tertiary",
            on_click=session.remove_photos,
            args=(one.number, one.photos),
        )
    if LEAST <= count < RELIABLE:
        st.caption("Answers learned from so few are not reliable: add more, better 20.")


def _train_probe(base: Entry, project: Project) -> None:
    """Train a linear probe on the images that can be read, and store it in the project."""
    classifier = load_classifier(base)
    with st.spinner("Training …"):
        try:
            pixels, places = _decode(project, classifier.info.input_size, RESIZE)
            shared = [found for found in places.values() if len({number for number, _ in found}) > 1]
            if shared:
                _show_shared(project, shared)
                return
            digests = {content: found[0][1].digest for content, found in places.items()}
            probe = fit_linear_probe(classifier, pixels, resize=RESIZE)
            result = result_of(probe, project, base.name, digests, find_alike(probe.images, _sides(project)))
            session.save_result(project.identity, result, probe)
            st.rerun()  # the model is also used above
        except ThirtytwoError as error:
            fix = "Remove it from its class." if isinstance(error, ImageError) else error.fix
            show_error(type(error)(error.message, fix))


def _show_shared(project: Project, shared: Sequence[Sequence[tuple[int, Photo]]]) -> None:
    """Show images that several classes have, with their file names."""
    for found in shared[:_MAX_UNREADABLE]:
        with st.container(border=True):
            text = f"{shared_sentence(project, found)} Remove it from all classes but the right one."
            st.error(as_markdown(text), icon=":material/content_copy:")
            tiles = [
                (view(projects().image(project.identity, photo)), project.class_name(number), photo.name)
                for number, photo in found
            ]
            st.html(image_grid(tiles))
    if len(shared) > _MAX_UNREADABLE:
        st.error(f"{len(shared) - _MAX_UNREADABLE} more images are in several classes.")


def _decode(
    project: Project, size: int, rule: ResizeRule
) -> tuple[dict[str, list[Pixels]], dict[bytes, list[tuple[int, Photo]]]]:
    """Decoded images by class, and by their pixels the images with them and the numbers of their classes."""
    pixels: dict[str, list[Pixels]] = {}
    places: dict[bytes, list[tuple[int, Photo]]] = {}
    for one in project.classes:
        pixels[one.name] = []
        for photo in one.readable:
            image = projects().image(project.identity, photo)
            found = load_image(image.path, size, rule, f"{image.name} in class {one.name}").pixels
            places.setdefault(found.tobytes(), []).append((one.number, photo))
            pixels[one.name].append(found)
    return pixels, places
