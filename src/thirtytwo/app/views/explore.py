"""A run's classes, confusions and mistakes, or a data set's classes and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from thirtytwo.app import library as shelf
from thirtytwo.app.components import title
from thirtytwo.app.markup import matrix, percent, wall
from thirtytwo.app.memory import let_go
from thirtytwo.data.doctor import splits
from thirtytwo.data.explore import class_counts
from thirtytwo.data.load import load_dataset
from thirtytwo.data.parts import Parts
from thirtytwo.data.run_data import load_run_data
from thirtytwo.data.source import DATASETS
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import ThirtytwoError
from thirtytwo.evaluation.metrics import confusion_matrix, wilson
from thirtytwo.explain.overlay import to_look_at
from thirtytwo.inference.classifier import RUNS
from thirtytwo.report.gallery import locate, picture_name
from thirtytwo.rundir import Predictions, RunDir
from thirtytwo.text import as_markdown

RUN, DATA = "A run", "A data set"
WRONG, RIGHT, ALL = "Wrong", "Right", "All"
SURE, UNSURE = "Surest first", "Least sure first"
ANY = "any"
ON_A_PAGE = 24
_MATRIX = 20
"""Classes up to which the whole confusion matrix fits a page."""
_CONFUSIONS = 30
_TILE = 112

Ints = npt.NDArray[np.int64]


def show() -> None:
    """The page."""
    title("Explore", "Look at what a run got right and wrong, or at the images of a data set.")
    what = st.segmented_control(
        "What to look at", [RUN, DATA], default=RUN, required=True, key="explore", label_visibility="collapsed"
    )
    if what == RUN:
        _run()
    else:
        _data()


@dataclass(frozen=True)
class Wanted:
    """Which predictions to show; None where any class will do."""

    true: str | None
    called: str | None
    which: str
    order: str


def select(predictions: Predictions, wanted: Wanted) -> Ints:
    """Positions of the predictions that are wanted, in the order wanted."""
    index = {name: number for number, name in enumerate(predictions.classes)}
    chosen = np.ones(len(predictions.truth), dtype=bool)
    if wanted.which != ALL:
        chosen &= (predictions.predicted == predictions.truth) == (wanted.which == RIGHT)
    if wanted.true is not None:
        chosen &= predictions.truth == index[wanted.true]
    if wanted.called is not None:
        chosen &= predictions.predicted == index[wanted.called]
    found = np.flatnonzero(chosen)
    sign = 1.0 if wanted.order == UNSURE else -1.0
    return np.asarray(found[np.argsort(sign * predictions.confidence[found], kind="stable")], dtype=np.int64)


def class_rows(predictions: Predictions) -> list[dict[str, Any]]:
    """One row a class: how many there are, how many of them were found, and what they are mostly taken for."""
    counts = confusion_matrix(predictions)
    called = counts.sum(axis=0)
    rows = []
    for number, name in enumerate(predictions.classes):
        support, right = int(counts[number].sum()), int(counts[number, number])
        others = counts[number].copy()
        others[number] = 0
        rows.append(
            {
                "class": name,
                "images": support,
                "recall": right / support if support else None,
                "precision": right / int(called[number]) if called[number] else None,
                "mostly taken for": predictions.classes[int(others.argmax())] if others.any() else "",
            }
        )
    return rows


def confusion_rows(predictions: Predictions, most: int = _CONFUSIONS) -> list[dict[str, Any]]:
    """The pairs most often confused."""
    counts = confusion_matrix(predictions)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(predictions.classes)) for place in order]
    return [
        {"true": predictions.classes[row], "called": predictions.classes[column], "times": int(counts[row, column])}
        for row, column in pairs
        if counts[row, column]
    ]


def runs_at_hand() -> list[Path]:
    """Run directories with predictions: those of models at hand and all under ./runs."""
    places = [entry.path.parent for entry in shelf.entries()] + sorted(
        path.parent for path in RUNS.glob("*/recipe.toml")
    )
    found: dict[Path, Path] = {}
    for place in places:
        if (place / "recipe.toml").is_file() and any(place.glob("predictions-*.parquet")):
            found.setdefault(place.resolve(), place)
    return list(found.values())


def _run() -> None:
    runs = runs_at_hand()
    if not runs:
        st.info(
            "There is no finished run here yet. Train one with `thirtytwo demo` or `thirtytwo train FOLDER`, or start "
            "the app in the directory that holds `runs`.",
            icon=":material/grid_view:",
        )
        return
    names = {_name(path, runs): path for path in runs}
    run = RunDir(names[st.selectbox("Run", list(names), key="explored-run", persist_state="session")])
    parts = sorted(path.stem.removeprefix("predictions-") for path in run.path.glob("predictions-*.parquet"))
    split = parts[0]
    if len(parts) > 1:
        default = "test" if "test" in parts else parts[0]
        picked = st.segmented_control(
            "Images of", parts, format_func=as_markdown, default=default, required=True, key=f"split-{run.path}"
        )
        split = picked or default
    predictions = _predictions(str(run.path), split, run.predictions(split).stat().st_mtime_ns)
    right = int((predictions.predicted == predictions.truth).sum())
    count = len(predictions.truth)
    low, high = wilson(right, count)
    st.metric(
        f"right of {count:,} images ({as_markdown(split)})",
        percent(right / count),
        f"95 % interval {100 * low:.1f}–{100 * high:.1f} %",
        delta_color="off",
        delta_arrow="off",
    )
    images_tab, classes_tab, confusions_tab = st.tabs(["Images", "Classes", "Confusions"])
    with images_tab:
        _show_images(run, split, predictions)
    with classes_tab:
        share = st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0)
        st.caption(
            "Recall: how many of its images were found. Precision: how many called so are so. Press a head to sort."
        )
        st.dataframe(
            class_rows(predictions),
            hide_index=True,
            column_config={"recall": share, "precision": share},
            alt="Classes with recall and precision",
        )
    with confusions_tab:
        if len(predictions.classes) <= _MATRIX:
            st.html(matrix(confusion_matrix(predictions), predictions.classes))
        st.caption("Most often confused; choose both classes under Images to see them.")
        st.dataframe(confusion_rows(predictions), hide_index=True, alt="Pairs of classes most often confused")


def _show_images(run: RunDir, split: str, predictions: Predictions) -> None:
    names = [ANY, *sorted(predictions.classes)]
    first, second, third = st.columns(3)
    true = first.selectbox("What it is", names, key=f"true-{run.path}")
    called = second.selectbox("What it was called", names, key=f"called-{run.path}")
    order = third.selectbox("Order", [SURE, UNSURE], key="order")
    which = st.segmented_control("Answers", [WRONG, RIGHT, ALL], default=WRONG, required=True, key="which")
    wanted = Wanted(None if true == ANY else true, None if called == ANY else called, which or WRONG, order)
    found = select(predictions, wanted)
    st.caption(f"{len(found):,} images")
    if not len(found):
        st.info("No image is like that; choose others above.", icon=":material/filter_alt:")
        return
    pages = -(-len(found) // ON_A_PAGE)
    first_shown = 0
    if pages > 1:
        first_shown = (st.pagination(pages, key=f"explore-page-{hash((wanted, len(found)))}") - 1) * ON_A_PAGE
    shown = found[first_shown : first_shown + ON_A_PAGE]
    images, problem = _split_images(run, split)
    places, found_problem = (None, problem) if images is None else locate(predictions, images, shown)
    if images is None or places is None:
        st.caption(f"The images themselves cannot be shown: {as_markdown(found_problem)}")
        st.dataframe([_row(predictions, position) for position in shown.tolist()], hide_index=True, alt="Predictions")
        return
    tiles = (
        (to_look_at(images.images[place], least=_TILE), *_lines(predictions, position))
        for place, position in zip(places.tolist(), shown.tolist(), strict=True)
    )
    st.html(wall(tiles))


def _lines(predictions: Predictions, position: int) -> tuple[str, str]:
    row = _row(predictions, position)
    if row["true"] == row["called"]:
        return str(row["true"]), percent(row["confidence"])
    return f"{row['true']}", f"called {row['called']}, {percent(row['confidence'])}"


def _row(predictions: Predictions, position: int) -> dict[str, Any]:
    return {
        "image": picture_name(predictions, position),
        "true": predictions.classes[int(predictions.truth[position])],
        "called": predictions.classes[int(predictions.predicted[position])],
        "confidence": float(predictions.confidence[position]),
    }


def _split_images(run: RunDir, split: str) -> tuple[ImageSet | None, str]:
    """The images that a split's rows count, or None and why not."""
    about = run.read_json(run.environment).get("data", {}) if run.environment.is_file() else {}
    if split not in ("test", "val") or not about.get("spec"):
        return None, "the run does not say where they are."
    try:
        parts = _parts(str(run.path), run.split.stat().st_mtime_ns if run.split.is_file() else 0)
    except ThirtytwoError as error:
        return None, f"{error.message} Start the app with --data-root where the data is."
    return (parts.test if split == "test" else parts.val), "the run held none out."


def _data() -> None:
    known = ", ".join(f"`{name}`" for name in DATASETS.names())
    with st.form("data-form", border=False):
        label = "Data set or folder" if shelf.settings.is_local else "Data set"
        spec = st.text_input(label, key="data-spec", placeholder="my-images", help="As thirtytwo train takes it")
        st.form_submit_button("Look at it")
    if not spec.strip():
        st.info(f"Give a folder with one folder of images a class, or one of {known}.", icon=":material/folder_open:")
        return
    if not shelf.settings.is_local and spec.partition("?")[0] not in DATASETS.names():
        st.error("Only known data sets can be looked at from another computer.")
        return
    data = _dataset(spec.strip(), "auto", "crop", 0)
    parts = splits(data)
    height, width = data.train.images.shape[1:3]
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    st.markdown(
        f"**{as_markdown(data.name)}**: {len(data.classes)} classes; {counts} images, at {width}×{height} pixels"
    )
    for skipped in data.skipped[:10]:
        st.caption(f"Left out: {as_markdown(skipped)}")
    first, second = st.columns(2)
    part = parts[first.selectbox("Images of", list(parts), key="data-part")]
    name = second.selectbox("Class", [ANY, *data.classes], key="data-class")
    st.html(wall(_samples(part, None if name == ANY else data.classes.index(name))))
    st.subheader("Classes", anchor=False)
    st.dataframe(
        [{"class": row.name, **row.counts} for row in class_counts(data)], hide_index=True, alt="Images of each class"
    )


def _samples(part: ImageSet, label: int | None) -> Sequence[tuple[npt.NDArray[np.uint8], str, str]]:
    """Some images of a class, or one or more of every class."""
    random = np.random.default_rng(0)
    if label is None:
        each = max(1, ON_A_PAGE // len(part.classes))
        groups = [np.flatnonzero(part.labels == number) for number in range(len(part.classes))]
        positions = np.concatenate([random.permutation(group)[:each] for group in groups])[: 2 * ON_A_PAGE]
    else:
        positions = random.permutation(np.flatnonzero(part.labels == label))[: 2 * ON_A_PAGE]
    return [
        (
            to_look_at(part.images[position], least=_TILE),
            part.classes[int(part.labels[position])],
            Path(part.files[position]).name if part.files else f"row {int(part.rows[position])}",
        )
        for position in positions.tolist()
    ]


def _name(path: Path, runs: Sequence[Path]) -> str:
    name = path.resolve().name
    return name if sum(one.resolve().name == name for one in runs) == 1 else f"{name} ({path})"


@st.cache_resource(show_spinner="Reading the predictions …", max_entries=4)
def _predictions(run: str, split: str, changed: int) -> Predictions:
    return RunDir(Path(run)).read_predictions(split)


@st.cache_resource(show_spinner="Reading the images …", max_entries=2)
def _parts(run: str, changed: int) -> Parts:
    parts = load_run_data(RunDir(Path(run)), shelf.settings.data_root).parts
    for part in (parts.train, parts.val, parts.test):
        if part is not None:
            let_go(part.images)
    return parts


@st.cache_resource(show_spinner="Reading the images …", max_entries=2)
def _dataset(spec: str, image_size: str, resize: Any, seed: int) -> DataSet:
    size: Any = int(image_size) if image_size.isdigit() else "auto"
    data = load_dataset(spec, data_root=shelf.settings.data_root, image_size=size, resize=resize, seed=seed)
    for part in splits(data).values():
        let_go(part.images)
    return data
