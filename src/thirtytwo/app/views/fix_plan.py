"""The accepted fixes of the page Data: a fixed copy of the data, the plan as a file, and the commands that apply it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.components import show_error
from thirtytwo.app.decisions import place_of
from thirtytwo.app.folder_field import entered
from thirtytwo.app.navigation import open_page
from thirtytwo.app.views.train import DATA, train_with
from thirtytwo.data.fixes import Fix, FixPlan, encode_fix_plan
from thirtytwo.data.repair import write_fixed
from thirtytwo.data.types import DATASETS
from thirtytwo.doctor.review import Review
from thirtytwo.errors import ThirtytwoError
from thirtytwo.io import expand_home, free_path
from thirtytwo.text import as_markdown, as_printable, capitalized, counted

_COPY = "fixed copy"


@dataclass(frozen=True)
class _Copy:
    """A copy of a data set that was written: where, with how many images, notes on what it lacks, and which fixes."""

    spec: str
    folder: Path
    images: int
    notes: tuple[str, ...]
    fixes: tuple[Fix, ...]


def show_plan(review: Review) -> None:
    """Offer a copy of the data with the accepted fixes, these as a file, and the commands that apply it."""
    plan, spec = review.plan, review.diagnosis.spec
    counts = ", ".join(f"{count:,} to {action}" for action, count in plan.counts.items() if count)
    st.subheader("Accepted fixes", anchor=False)
    if not plan.fixes:
        st.caption("Accept a fix to get a fixed copy of the data.")
    else:
        st.caption(f"{counted(len(plan.fixes), 'image')}: {counts}.")
        if library.settings.is_local:
            _offer_training(spec, plan)
            _offer_copy(spec, plan)
    st.download_button(
        "Download the list of fixes (CSV)",
        encode_fix_plan(plan),
        "plan.csv",
        "text/csv",
        key="plan-csv",
        disabled=not plan.fixes,
        on_click="ignore",
        icon=":material/download:",
    )
    if plan.fixes:
        with st.expander("In a terminal"):
            st.caption("With the downloaded list, write a fixed copy of the data, or train with the fixes:")
            st.code("\n".join(map(as_printable, commands(spec))), language="bash", wrap_lines=True)


def commands(spec: str) -> tuple[str, str]:
    """The commands that apply a downloaded plan: to a copy of the data, and in training."""
    root = library.settings.data_root
    options = [] if root is None else ["--data-root", str(root)]
    return (
        shlex.join(["thirtytwo", "data", "fix", spec, "--plan", "plan.csv", "--out", "NEW", *options]),
        shlex.join(["thirtytwo", "train", spec, "--apply", "plan.csv", *options]),
    )


def copy_folder(spec: str) -> Path:
    """A folder that does not exist for a fixed copy: beside the data, or in the current directory."""
    name, _, _ = spec.partition("?")
    place = Path(place_of(name))
    beside = name not in DATASETS.names() and place.is_absolute()
    folder = place if place.is_dir() else place.parent
    if not beside or not folder.name:
        return free_path(Path(f"{Path(name).name or 'data'}-fixed").absolute())
    return free_path(folder.with_name(f"{folder.name}-fixed"))


def _offer_training(spec: str, plan: FixPlan) -> None:
    """Lead to the page Train with these fixes, without a copy of the data."""
    if st.button("Train with these fixes", type="primary", key="plan-train", icon=":material/model_training:"):
        try:
            with st.spinner("Checking the data …", show_time=True):
                train_with(spec, plan)
        except ThirtytwoError as error:
            show_error(error)


def _offer_copy(spec: str, plan: FixPlan) -> None:
    """Let the user write a copy of the data with the fixes, and train on it."""
    with st.form("copy-form", border=False):
        text = st.text_input(
            "New folder for a fixed copy of the data",
            str(copy_folder(spec)),
            key=f"copy-folder-{spec}",
            help="The data stays as it is. The copy has the images that are left, sorted into one folder per class.",
        )
        wanted = st.form_submit_button("Write the fixed copy", icon=":material/folder_copy:", key="copy-write")
    if wanted and text.strip():
        try:
            with st.spinner("Copying …", show_time=True):
                out = expand_home(entered(text)).absolute()
                content = encode_fix_plan(plan)
                written = write_fixed(spec, replace(plan, content=content), out, data_root=library.settings.data_root)
            st.session_state[_COPY] = _Copy(spec, out, written.images, written.notes, plan.fixes)
        except ThirtytwoError as error:
            show_error(error)
    copy: _Copy | None = st.session_state.get(_COPY)
    if copy is not None and copy.spec == spec:
        _show_copy(copy, plan)


def _show_copy(copy: _Copy, plan: FixPlan) -> None:
    """Show where the copy is, whether decisions have changed since, and a button to train on it."""
    with st.container(border=True, key="copy"):
        st.markdown(as_markdown(f"{counted(copy.images, 'image')} are in the fixed copy {copy.folder}."))
        for note in copy.notes:
            st.caption(as_markdown(f"{capitalized(note)}."))
        if copy.fixes != plan.fixes:
            st.caption("You have accepted or rejected fixes since it was written.")
        if st.button("Train on the copy", key="copy-train", icon=":material/model_training:"):
            st.session_state[DATA] = str(copy.folder)
            open_page("Train")
