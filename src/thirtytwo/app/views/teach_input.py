"""Ways to add images of several classes at once on the page Add classes: a folder, a ZIP file, the camera."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import streamlit as st

from thirtytwo.app import session
from thirtytwo.app.camera import camera
from thirtytwo.app.class_folders import ClassFolders, group_by_class, open_zip, read_entry, zip_entries
from thirtytwo.app.components import show_error
from thirtytwo.app.images import FIELD, TYPES
from thirtytwo.app.intake import Portion, take_in
from thirtytwo.app.project import PhotoClass
from thirtytwo.app.settings import IMAGE_MB, ZIP_MB
from thirtytwo.app.uploads import Uploaded, content, discard, path_of
from thirtytwo.errors import InputError, ThirtytwoError
from thirtytwo.images.formats import FORMATS
from thirtytwo.text import as_markdown, counted

FILES, FOLDER, CAMERA = "Files", "Folder or ZIP", "Camera"
_PORTION = 8
"""Number of images that are in memory at a time."""
_NOTES = "notes on added folders"
_MAX_NOTES = 6

File = TypeVar("File")


def show_ways() -> None:
    """Show the choice of how to add images, and the input for all classes at once."""
    way = st.segmented_control(
        "How to add images",
        [FILES, FOLDER, CAMERA],
        default=FILES,
        required=True,
        key="teach-way",
        label_visibility="collapsed",
        persist_state="session",
    )
    if way == FOLDER:
        _show_folder()
    elif way == CAMERA:
        camera()
    with st.container():
        for note in st.session_state.pop(_NOTES, []):
            st.info(as_markdown(note), icon=":material/folder:")


def _show_folder() -> None:
    with st.container(border=True, key="class-folders"):
        st.markdown(
            "Each subfolder becomes a class with the name of the subfolder. A folder or a ZIP file of images alone is "
            "one class."
        )
        turn = st.session_state.setdefault("folder-turn", 0)
        with st.container(key=f"{FIELD}-folder"):
            files = st.file_uploader(
                "Folder with one subfolder per class",
                type=TYPES,
                accept_multiple_files="directory",
                key=f"class-folder-{turn}",
                max_upload_size=IMAGE_MB,
                help=f"{FORMATS}. No data leaves this computer.",
            )
        with st.container(key="zip-field"):
            archive = st.file_uploader(
                "Or a ZIP file of such a folder", type="zip", key=f"class-zip-{turn}", max_upload_size=ZIP_MB
            )
        if not files and archive is None:
            return
        try:
            take_in(_portions(files, archive))
        except ThirtytwoError as error:
            show_error(error)
            return
    st.rerun()


def _portions(files: Sequence[Uploaded], archive: Uploaded | None) -> Iterator[Portion]:
    """Add the images of a folder, or of a ZIP file; then the fields are emptied.

    Raises:
        InputError: there are no images in folders, or the ZIP file cannot be read.
    """
    opened = None
    if files:
        yield from _add(group_by_class((file.name, file) for file in files), content)
    if archive is not None:
        opened = open_zip(path_of(archive) or io.BytesIO(content(archive)), archive.name)
        try:
            found = group_by_class(zip_entries(opened), Path(archive.name).stem)
        except InputError:
            opened.close()
            raise
        yield from _add(found, partial(_unpack, opened))

    def empty() -> None:
        if opened is not None:
            opened.close()
        for file in [*files, *([] if archive is None else [archive])]:
            discard(file)
        st.session_state["folder-turn"] += 1

    yield Portion(0, empty)


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | None:
    return read_entry(archive, entry, IMAGE_MB << 20)


def _add(found: ClassFolders[File], read: Callable[[File], bytes | None]) -> Iterator[Portion]:
    """Add the images of each class in portions; then note what was added and left out."""
    failed: dict[int, int] = {}
    place = session.target()
    known = {(one.number, photo.digest) for one in session.current().classes for photo in one.photos}
    after: dict[int, PhotoClass] = {}

    def take(number: int, name: str, files: Sequence[tuple[str, File]]) -> None:
        portion = [(file_name, read(file)) for file_name, file in files]
        readable = [(file_name, data) for file_name, data in portion if data is not None]
        one = session.add_class_photos(place, name, readable)
        after[one.number] = one
        failed[number] = len(portion) - len(readable)

    def note() -> None:
        classes, left = len(found.classes), sum(failed.values())
        added = [photo for one in after.values() for photo in one.photos if (one.number, photo.digest) not in known]
        unreadable = sum(bool(photo.problem) for photo in added)
        images = counted(len(added) - unreadable, "image")
        notes = [f"{images} of {classes} {'class' if classes == 1 else 'classes'} added."]
        if unreadable:
            notes.append(f"{counted(unreadable, 'file')} cannot be read, and will not be used.")
        if left:
            notes.append(f"{counted(left, 'file')} left out: damaged, or larger than {IMAGE_MB} MB.")
        st.session_state[_NOTES] = [*notes, *found.notes][:_MAX_NOTES]

    portions = [
        (name, files[start : start + _PORTION])
        for name, files in found.classes.items()
        for start in range(0, len(files), _PORTION)
    ]
    for number, (name, files) in enumerate(portions):
        yield Portion(len(files), partial(take, number, name, files))
    yield Portion(0, note)
