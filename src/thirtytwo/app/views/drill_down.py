"""From the summary, classes and confusions of a run on the page Explore to their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from thirtytwo.app.components import matrix, percent_column, with_percentages
from thirtytwo.errors import MissingExtraError
from thirtytwo.evaluation.next_steps import NextSteps, next_steps
from thirtytwo.predictions import Predictions
from thirtytwo.text import SPACE, as_markdown, counted, readable

ANY = ""
"""Stands for all classes among the names of classes, none of which is empty."""
WRONG, RIGHT, EVERY = "Misclassified", "Correct", "All"
SUSPECTED = "Labels to check"
TAB_IMAGES = "Images"
Ints = npt.NDArray[np.int64]

MATRIX = """
export default function ({ data, parentElement, setTriggerValue }) {
  const place = parentElement.querySelector("div");
  place.innerHTML = data.html;
  place.onclick = (event) => {
    const cell = event.target.closest("[data-pick]");
    if (cell) setTriggerValue("picked", cell.dataset.pick);
  };
}
"""
"""Script that shows a confusion matrix whose cells can be clicked."""


@dataclass(frozen=True)
class Filters:
    """Keys of the filters of a run's images in the state of the session, and of the tab that is open."""

    run: str

    @property
    def true(self) -> str:
        return f"true-{self.run}"

    @property
    def predicted(self) -> str:
        return f"predicted-{self.run}"

    @property
    def outcome(self) -> str:
        return "outcome"

    @property
    def search(self) -> str:
        return f"search-{self.run}"

    @property
    def tab(self) -> str:
        return f"tab-{self.run}"

    def show(self, true: str = ANY, predicted: str = ANY, outcome: str = WRONG) -> None:
        """Show the images of a class or confusion on the tab of images."""
        wanted = {self.true: true, self.predicted: predicted, self.outcome: outcome, self.search: ""}
        for key, value in (wanted | {self.tab: TAB_IMAGES}).items():
            st.session_state[key] = value


def show_next_steps(predictions: Predictions, filters: Filters) -> Any:
    """Show what to do next, with buttons that show the images concerned; returns the place of labels to check."""
    found = next_steps(predictions, labels=False)
    with st.container(border=True, key="next-steps"):
        st.subheader("What to do next", anchor=False)
        st.markdown("\n".join(f"- {as_markdown(sentence)}" for sentence in found.advice))
        with st.container(horizontal=True, key="next-steps-buttons", gap="small"):
            for number, weak in enumerate(found.weak):
                st.button(
                    as_markdown(f"{readable(weak.name)}: {weak.recognized} of {weak.images} recognized")
                    + f", 95{SPACE}% interval {weak.ends}",
                    key=f"weak-{number}",
                    help="Of all images of the class, also new ones, the share that is recognized probably lies in the "
                    "interval. Shows those that are misclassified.",
                    on_click=filters.show,
                    args=(weak.name,),
                )
            for number, pair in enumerate(found.confusions):
                st.button(
                    as_markdown(f"{readable(pair.true)} → {readable(pair.predicted)}: {pair.count} of {pair.images}"),
                    key=f"pair-{number}",
                    help="Shows the images of this confusion.",
                    on_click=filters.show,
                    args=(pair.true, pair.predicted),
                )
        return st.container()


def show_labels(found: NextSteps, filters: Filters) -> None:
    """Show how many labels to check there are, with a button that shows their images."""
    if found.labels is None:
        st.caption("Labels were not checked: that needs the libraries for training, which are not installed here.")
        return
    count = sum(len(part.positions) for part in found.labels)
    if not count:
        st.caption("No label looks wrong.")
        return
    st.markdown(f"- {as_markdown(found.advice[0])}")
    label = f"{counted(count, 'label')} to check"
    st.button(label, key="suspected", on_click=filters.show, args=(ANY, ANY, SUSPECTED))


@st.cache_resource(show_spinner="Looking for wrong labels …", max_entries=4)
def steps_of(run: str, split: str, modified: int, _predictions: Predictions) -> NextSteps:
    """What to do next with a run, by predictions on one split; labels are not checked where cleanlab is missing."""
    try:
        return next_steps(_predictions, {split: _predictions})
    except MissingExtraError:
        return next_steps(_predictions, labels=False)


def show_matrix(counts: Ints, classes: Sequence[str], filters: Filters) -> None:
    """Show a confusion matrix `(C, C)` whose cells show their images when they are clicked."""
    key = f"matrix-{filters.run}"

    def picked() -> None:
        found = str(st.session_state[key].get("picked") or "")
        row, _, column = found.partition(",")
        if row.isdecimal() and column.isdecimal():
            true, predicted = classes[int(row)], classes[int(column)]
            filters.show(true, predicted, RIGHT if true == predicted else WRONG)

    _matrix_component()(key=key, data={"html": matrix(counts, classes, pick=True)}, on_picked_change=picked)


def show_table_of_classes(rows: list[dict[str, Any]], classes: Sequence[str], filters: Filters) -> None:
    """Show a table with a row for each class; a selected one shows its images."""
    _selectable(
        with_percentages(rows, "recall", "precision"),
        f"classes-{filters.run}",
        lambda row: filters.show(classes[row], outcome=EVERY),
        column_config={"recall": percent_column(), "precision": percent_column()},
        alt="Classes with recall and precision",
    )


def show_table_of_confusions(pairs: list[dict[str, Any]], filters: Filters) -> None:
    """Show a table of confusions; a selected one shows its images."""
    rows = [
        {
            "actual class": readable(one["true"]),
            "predicted class": readable(one["predicted"]),
            "images": one["count"],
        }
        for one in pairs
    ]
    _selectable(
        rows,
        f"confusions-{filters.run}",
        lambda row: filters.show(pairs[row]["true"], pairs[row]["predicted"]),
        alt="Most frequent confusions",
    )


def _selectable(rows: list[dict[str, Any]], key: str, show: Any, **options: Any) -> None:
    def selected() -> None:
        found = st.session_state[key].selection.rows
        if found:
            show(found[0])

    st.dataframe(rows, hide_index=True, key=key, on_select=selected, selection_mode="single-row", **options)


@st.cache_resource(show_spinner=False)
def _matrix_component() -> Any:
    return st.components.v2.component("thirtytwo_matrix", html="<div></div>", js=MATRIX, isolate_styles=False)
