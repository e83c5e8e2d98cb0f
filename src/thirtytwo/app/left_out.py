"""Files that were dropped on a field for images and left out: those that are no images, and those that are too large.

The browser refuses files that are too large, and the field is emptied once it has passed on the others; so a script
notes their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import streamlit as st

from thirtytwo.app.settings import IMAGE_MB
from thirtytwo.images.formats import FORMATS
from thirtytwo.text import as_markdown, counted, listing, shorten

_MAX_NAMES, _LONGEST = 6, 60
_VIDEOS = frozenset({".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mts"})
_RAW = frozenset({".dng", ".arw", ".cr2", ".cr3", ".nef", ".nrw", ".orf", ".raf", ".raw", ".rw2", ".srw", ".pef"})
_DOCUMENTS = frozenset({".pdf", ".doc", ".docx", ".ppt", ".pptx", ".psd", ".svg"})
_OTHERS = _VIDEOS | _RAW | _DOCUMENTS
_ADVICE = (
    (_VIDEOS, "Of a video, add a frame that you saved as an image."),
    (_RAW, "Export raw photographs as JPEG first."),
    (_DOCUMENTS, "Of a document, add its pages or photographs saved as images."),
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

    def sentences(self) -> list[str]:
        """Which files were left out, why, and what to do."""
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
        return found + [advice for kinds, advice in _ADVICE if suffixes & kinds]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _are(names: Sequence[str]) -> str:
    return "is no image that can be read" if len(names) == 1 else "are no images that can be read"


def _names(names: Sequence[str]) -> str:
    return listing((shorten(name, _LONGEST) for name in names), _MAX_NAMES, quoted=False)


def begin(key: str) -> None:
    """Forget which files of the upload before were no images, of the field with this key; the script does the rest."""
    st.session_state[_place(key)] = replace(_found(key), others=())


def leave_out(key: str, names: Sequence[str]) -> None:
    """Note files of an upload that are no images."""
    before = _found(key)
    st.session_state[_place(key)] = replace(before, others=tuple(dict.fromkeys([*before.others, *names])))


def watch(key: str, field: str) -> None:
    """Note files that are too large for the field in the container with the key `field`."""
    name = f"{key}-watch"

    def noted() -> None:
        names = tuple(map(str, st.session_state[name].get("large") or ()))
        st.session_state[_place(key)] = replace(_found(key), large=names)

    data = {"field": f".st-key-{field}", "most": IMAGE_MB << 20}
    _component()(key=name, data=data, on_large_change=noted, height=1)


def show(key: str) -> None:
    """Show what was left out of the last upload, until the user closes it or uploads again."""
    sentences = _found(key).sentences()
    if not sentences:
        return
    with st.container(key=f"{key}-left-out"):
        st.warning(as_markdown(" ".join(sentences)), icon=":material/block:")
        st.button("Close this note", key=f"{key}-left-out-close", type="tertiary", on_click=_forget, args=(key,))


def _forget(key: str) -> None:
    st.session_state.pop(_place(key), None)


def _found(key: str) -> LeftOut:
    found: LeftOut = st.session_state.get(_place(key), LeftOut())
    return found


def _place(key: str) -> str:
    return f"{key}-left out"


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    return st.components.v2.component("thirtytwo_left_out", js=WATCH)
