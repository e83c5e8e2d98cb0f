"""Files that were dropped on a field for images and left out: those that are no images, and those that are too large.

Notes on them belong to the field, and where its images are for a project, to that project.

The browser refuses files that are too large, and the field is emptied once it has passed on the others; so a script
notes their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import streamlit as st

from thirtytwo.app.session import Target
from thirtytwo.app.settings import IMAGE_MB
from thirtytwo.images.formats import FORMATS
from thirtytwo.text import as_markdown, counted, listing, shorten

_NOTES = "files that were left out"
_MAX_NAMES, _LONGEST = 6, 60
_VIDEOS = frozenset({".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mts"})
_RAW = frozenset({".dng", ".arw", ".cr2", ".cr3", ".nef", ".nrw", ".orf", ".raf", ".raw", ".rw2", ".srw", ".pef"})
_DOCUMENTS = frozenset({".pdf", ".doc", ".docx", ".ppt", ".pptx", ".psd", ".svg"})
_ZIP = frozenset({".zip"})
_ARCHIVES = frozenset({".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".7z", ".rar"})
_OTHERS = _VIDEOS | _RAW | _DOCUMENTS | _ZIP | _ARCHIVES
_UNPACK = "Unpack an archive first, and add the images in it."
_ADVICE = (
    (_VIDEOS, "Of a video, add a frame that you saved as an image."),
    (_RAW, "Export raw photographs as JPEG first."),
    (_DOCUMENTS, "Of a document, add its pages or photographs saved as images."),
    (_ARCHIVES, _UNPACK),
)

WATCH = """
export default function ({ data, parentElement, setTriggerValue }) {
  const note = (event) => {
    if (!event.target.closest?.(data.field)) return;
    const files = [...((event.dataTransfer ?? event.target).files ?? [])];
    const large = files.filter((file) => file.size > data.most).map((file) => file.name);
    if (large.length || parentElement.noted) setTriggerValue("large", large);
    parentElement.noted = large.length;
  };
  for (const kind of ["change", "drop"]) document.addEventListener(kind, note, true);
  return () => {
    for (const kind of ["change", "drop"]) document.removeEventListener(kind, note, true);
  };
}
"""
"""Script that passes on the names of files that are larger than the field accepts."""


@dataclass(frozen=True)
class LeftOut:
    """Names of the files that were left out of the last upload: no images, and too large."""

    others: tuple[str, ...] = ()
    large: tuple[str, ...] = ()

    def sentences(self, zip_field: str = "") -> list[str]:
        """Which files were left out, why, and what to do; `zip_field` is what on the page takes ZIP files."""
        found = []
        if self.others:
            what = f"{counted(len(self.others), 'file')} left out, which {_are(self.others)}"
            found.append(f"{what}: {_names(self.others)}.")
            found.append(f"What can be read: {FORMATS}.")
        if self.large:
            found.append(
                f"{counted(len(self.large), 'file')} left out, larger than {IMAGE_MB} MB: {_names(self.large)}."
            )
            if not {_suffix(name) for name in self.large} <= _OTHERS:
                found.append("Save images smaller, and add them again.")
        suffixes = {_suffix(name) for name in [*self.others, *self.large]}
        for_zip = f"Choose “{zip_field}” above to add a ZIP file." if zip_field else _UNPACK
        advice = dict.fromkeys(text for kinds, text in (*_ADVICE, (_ZIP, for_zip)) if suffixes & kinds)
        return [*found, *advice]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _are(names: Sequence[str]) -> str:
    return "is no image that can be read" if len(names) == 1 else "are no images that can be read"


def _names(names: Sequence[str]) -> str:
    return listing((shorten(name, _LONGEST) for name in names), _MAX_NAMES, quoted=False)


def begin(key: str, project: Target | None = None) -> None:
    """Forget which files of the upload before were no images, of the field with this key; the script does the rest."""
    _note(replace(_found(key, project), others=()), key, project)


def leave_out(key: str, names: Sequence[str], project: Target | None = None) -> None:
    """Note files of an upload that are no images; a project that is not stored yet is stored with the note."""
    before = _found(key, project)
    _note(replace(before, others=tuple(dict.fromkeys([*before.others, *names]))), key, project)


def watch(key: str, field: str, project: Target | None = None) -> None:
    """Note files that are too large for the field in the container with the key `field`."""
    name = f"{key}-watch"

    def noted() -> None:
        names = tuple(map(str, st.session_state[name].get("large") or ()))
        _note(replace(_found(key, project), large=names), key, project)

    data = {"field": f".st-key-{field}", "most": IMAGE_MB << 20}
    _component()(key=name, data=data, on_large_change=noted, height=1)


def show(key: str, project: Target | None = None, zip_field: str = "") -> None:
    """Show what was left out of the last upload, until the user closes it or uploads again."""
    sentences = _found(key, project).sentences(zip_field)
    if not sentences:
        return
    place = _place(key, project)
    with st.container(key=f"{place}-left-out"):
        st.warning(as_markdown(" ".join(sentences)), icon=":material/block:")
        st.button("Close this note", key=f"{place}-left-out-close", type="tertiary", on_click=_forget, args=(place,))


def _note(found: LeftOut, key: str, project: Target | None) -> None:
    if project is not None and found != LeftOut():
        project.stored()
    st.session_state.setdefault(_NOTES, {})[_place(key, project)] = found


def _forget(place: str) -> None:
    st.session_state.setdefault(_NOTES, {}).pop(place, None)


def _found(key: str, project: Target | None) -> LeftOut:
    found: LeftOut = st.session_state.get(_NOTES, {}).get(_place(key, project), LeftOut())
    return found


def _place(key: str, project: Target | None) -> str:
    return f"{key}-{project.identity}" if project is not None and project.identity else key


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    return st.components.v2.component("thirtytwo_left_out", js=WATCH)
