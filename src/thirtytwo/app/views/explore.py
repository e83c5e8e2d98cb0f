"""The page Explore: predictions, classes and confusions of a run, or classes and images of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.advice import in_plain_words
from thirtytwo.app.components import image_grid, percent_column, title, with_percentages
from thirtytwo.app.folder_field import data_label, entered, short_name, show_chooser, what_to_enter
from thirtytwo.app.folds import NOTE, cross_validations, is_cross_validation, show_folds, show_mean
from thirtytwo.app.frame import announce
from thirtytwo.app.names import given_names
from thirtytwo.app.opened_runs import has_predictions, just_opened, opened_runs, show_path_form
from thirtytwo.app.pager import Pager
from thirtytwo.app.problems import plain
from thirtytwo.app.run_images import openable_image, run_folders, run_model, run_rule, tile_of
from thirtytwo.app.views.drill_down import (
    ANY,
    EVERY,
    RIGHT,
    SUSPECTED,
    TAB_IMAGES,
    WRONG,
    Filters,
    show_labels,
    show_matrix,
    show_next_steps,
    show_table_of_classes,
    show_table_of_confusions,
    steps_of,
)
from thirtytwo.data.arrays import release_pages
from thirtytwo.data.decoding import UnreadableImagesError
from thirtytwo.data.explore import class_counts
from thirtytwo.data.load import files_folder
from thirtytwo.data.run_data import load_out_of_fold, load_run_data
from thirtytwo.data.split import SPLIT_NAMES, Parts
from thirtytwo.data.types import DATASETS, DataSet, ImageSet
from thirtytwo.errors import ThirtytwoError
from thirtytwo.evaluation.metrics import confusion_matrix, confusions, wilson
from thirtytwo.evaluation.next_steps import NextSteps
from thirtytwo.images.render import for_display
from thirtytwo.io import RUNS
from thirtytwo.predictions import Predictions
from thirtytwo.report.gallery import locate
from thirtytwo.report.seeds import read_summary
from thirtytwo.run_paths import OUT_OF_FOLD
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_markdown, capitalized, counted, interval, is_utf8, percent, readable, readable_names
from thirtytwo.workflows.load_data import load_dataset

RUN, DATA = "A run", "A data set"
ALL = EVERY
SURE, UNSURE = "Most confident first", "Least confident first"
IMAGES_PER_PAGE = 24
_TABS = (TAB_IMAGES, "Classes", "Confusions")
_MATRIX = 20
"""Maximum number of classes for which the confusion matrix is shown."""
_MAX_CONFUSIONS = 30
_CHOSEN = "explored-run"
_TILE = 112
_MAX_NOTES = 10
_MOVED = "Put the data back where it was when the model was trained."

Ints = npt.NDArray[np.int64]


def show() -> None:
    """Show the page."""
    title("Explore", "See what a trained model got right and wrong, or look at the images of a data set.")
    choice = st.segmented_control(
        "What to show", [RUN, DATA], default=RUN, required=True, key="explore", label_visibility="collapsed"
    )
    if choice == RUN:
        _show_run()
    else:
        _show_data()


@dataclass(frozen=True)
class PredictionFilter:
    """Criteria for the predictions to show; None matches any class."""

    true: str | None
    predicted: str | None
    outcome: str
    order: str
    search: str = ""
    """Part of the file name, whatever its case."""


def select(predictions: Predictions, criteria: PredictionFilter, suspected: Sequence[int] = ()) -> Ints:
    """Positions of the predictions that match `criteria`, in its order; `suspected` are those of labels to check."""
    index = {name: number for number, name in enumerate(predictions.classes)}
    chosen = np.ones(len(predictions.truth), dtype=bool)
    if criteria.outcome == SUSPECTED:
        chosen &= np.isin(np.arange(len(chosen)), suspected)
    elif criteria.outcome != ALL:
        chosen &= predictions.correct == (criteria.outcome == RIGHT)
    if criteria.true is not None:
        chosen &= predictions.truth == index[criteria.true]
    if criteria.predicted is not None:
        chosen &= predictions.predicted == index[criteria.predicted]
    found = np.flatnonzero(chosen)
    if sought := criteria.search.strip().casefold():
        named = [position for position in found.tolist() if sought in predictions.name_of(position).casefold()]
        found = np.array(named, dtype=np.int64)
    sign = 1.0 if criteria.order == UNSURE else -1.0
    return np.asarray(found[np.argsort(sign * predictions.confidence[found], kind="stable")], dtype=np.int64)


def class_rows(predictions: Predictions) -> list[dict[str, Any]]:
    """One row per class: number of images, recall, precision and the most frequent wrong prediction."""
    counts = confusion_matrix(predictions)
    predicted_counts = counts.sum(axis=0)
    rows = []
    for number, name in enumerate(predictions.classes):
        support, correct = int(counts[number].sum()), int(counts[number, number])
        others = counts[number].copy()
        others[number] = 0
        rows.append(
            {
                "class": readable(name),
                "images": support,
                "recall": correct / support if support else None,
                "precision": correct / int(predicted_counts[number]) if predicted_counts[number] else None,
                "most confused with": readable(predictions.classes[int(others.argmax())]) if others.any() else "",
            }
        )
    return rows


def available_runs() -> list[Path]:
    """Directories with predictions: those opened by path, of the model library, under ./runs, and cross-validations.

    Those whose names are not UTF-8 are left out.
    """
    directories = [entry.path.parent for entry in library.entries()] + sorted(
        path.parent for path in RUNS.glob("*/recipe.toml") if is_utf8(path)
    )
    found: dict[Path, Path] = {}
    for directory in [*opened_runs(), *directories, *cross_validations()]:
        if has_predictions(directory):
            found.setdefault(directory.resolve(), directory)
    return list(found.values())


def _show_run() -> None:
    runs = available_runs()
    if not runs:
        st.info(
            "There is no trained model yet. Train one on the page Train, or open the folder of one below.",
            icon=":material/grid_view:",
        )
        _offer_path()
        return
    names = _display_names(runs)
    if (opened := just_opened()) in names:
        st.session_state[_CHOSEN] = names[opened]
    found = {name: path for path, name in names.items()}
    run = RunDir(found[st.selectbox("Run", list(found), key=_CHOSEN, persist_state="session")])
    _offer_path()
    if is_cross_validation(run.path):
        _show_cross_validation(run)
        return
    split = _choose_split(run)
    predictions = _load_predictions(str(run.path), split, run.predictions(split).stat().st_mtime_ns)
    _show_accuracy(predictions, split)
    _show_tabs(run, split, predictions, _TABS)


def _offer_path() -> None:
    """Let users of this computer open a run that is not listed."""
    if library.settings.is_local:
        show_path_form()


def _show_cross_validation(run: RunDir) -> None:
    """Show the mean accuracy of a cross-validation, and the predictions of every image out of its fold."""
    content = read_summary(run.path)
    predictions = _load_predictions(str(run.path), OUT_OF_FOLD, run.predictions(OUT_OF_FOLD).stat().st_mtime_ns)
    over_folds, over_images = st.columns(2)
    with over_folds:
        show_mean(content)
    with over_images:
        _show_accuracy(predictions, "all folds")
    st.caption(NOTE)
    with _show_tabs(run, OUT_OF_FOLD, predictions, [*_TABS, "Folds"])[0]:
        show_folds(run.path, content, "folds-report")


def _show_tabs(run: RunDir, split: str, predictions: Predictions, names: Sequence[str]) -> Sequence[Any]:
    """Show what to do next, and images, classes and confusions, each on its tab; returns the other tabs."""
    filters = Filters(str(run.path))

    def steps() -> NextSteps:
        return steps_of(str(run.path), split, run.predictions(split).stat().st_mtime_ns, predictions)

    labels = show_next_steps(predictions, filters)
    images_tab, classes_tab, confusions_tab, *others = st.tabs(names, key=filters.tab, on_change="rerun")
    with images_tab:
        _show_images(run, split, predictions, filters, steps)
    with classes_tab:
        _show_classes(predictions, filters)
    with confusions_tab:
        _show_confusions(predictions, filters)
    with labels:  # last: looking for wrong labels takes longer than all the rest
        show_labels(steps(), filters)
    return others


def _choose_split(run: RunDir) -> str:
    """Let the user choose a split with predictions if there are several."""
    parts = sorted(path.stem.removeprefix("predictions-") for path in run.path.glob("predictions-*.parquet"))
    if len(parts) == 1:
        return parts[0]
    default = "test" if "test" in parts else parts[0]
    selected = st.segmented_control(
        "Split", parts, format_func=_shown_split, default=default, required=True, key=f"split-{run.path}"
    )
    return selected or default


def _shown_split(split: str) -> str:
    return as_markdown(SPLIT_NAMES.get(split, split))


def _show_accuracy(predictions: Predictions, split: str) -> None:
    correct, count = int(predictions.correct.sum()), len(predictions.truth)
    st.metric(
        f"Accuracy on {counted(count, 'image')} ({_shown_split(split)})",
        percent(correct / count),
        f"95\u00a0% interval {interval(wilson(correct, count))}",
        delta_color="off",
        delta_arrow="off",
    )


def _show_classes(predictions: Predictions, filters: Filters) -> None:
    st.caption(
        "Recall: how many of a class's images were predicted as that class. Precision: how many of the images "
        "predicted as a class belong to it. Click a column header to sort, or select a row to see its images."
    )
    show_table_of_classes(class_rows(predictions), predictions.classes, filters)


def _show_confusions(predictions: Predictions, filters: Filters) -> None:
    if len(predictions.classes) <= _MATRIX:
        st.caption("Click a cell to see its images.")
        show_matrix(confusion_matrix(predictions), predictions.classes, filters)
    st.caption("Most frequent confusions; select a row to see its images.")
    show_table_of_confusions(confusions(predictions)[:_MAX_CONFUSIONS], filters)


def _show_images(
    run: RunDir, split: str, predictions: Predictions, filters: Filters, steps: Callable[[], NextSteps]
) -> None:
    criteria = _choose_filter(filters, predictions.classes)
    suspected: list[int] = []
    if criteria.outcome == SUSPECTED:
        suspected = [position for part in steps().labels or () for position in part.positions]
    found = select(predictions, criteria, suspected)
    count = counted(len(found), "image")
    st.caption(count)
    announce(count)
    if not len(found):
        st.info("No image matches these filters.", icon=":material/filter_alt:")
        return
    pager = Pager(len(found), IMAGES_PER_PAGE, f"explore-page-{hash((criteria, len(found)))}")
    _show_tiles(run, split, predictions, found[pager.show()])
    pager.show_again()


def _choose_filter(filters: Filters, classes: Sequence[str]) -> PredictionFilter:
    names, shown = [ANY, *sorted(classes)], _shown(classes)
    first, second, third = st.columns(3)
    true = first.selectbox("Actual class", names, format_func=shown.__getitem__, key=filters.true)
    predicted = second.selectbox("Predicted class", names, format_func=shown.__getitem__, key=filters.predicted)
    order = third.selectbox("Sort", [SURE, UNSURE], key="order")
    outcomes = [WRONG, RIGHT, ALL, SUSPECTED]
    if st.session_state.get(filters.outcome) not in outcomes:
        st.session_state[filters.outcome] = WRONG
    outcome = st.segmented_control("Predictions", outcomes, required=True, key=filters.outcome)
    search = st.text_input("File name", key=filters.search, placeholder="Part of the name", icon=":material/search:")
    return PredictionFilter(
        None if true == ANY else true, None if predicted == ANY else predicted, outcome or WRONG, order, search
    )


def _shown(classes: Sequence[str]) -> dict[str, str]:
    """What lists show of each class and of `ANY`; all differ, because Streamlit takes equal ones for the same."""
    return {ANY: "Any class", **dict(zip(classes, readable_names(classes), strict=True))}


def _show_tiles(run: RunDir, split: str, predictions: Predictions, shown: Ints) -> None:
    """Show the images of predictions, or a table where the images are not available."""
    images, problem = _split_images(run, split)
    indices, problem = (None, problem) if images is None else locate(predictions, images, shown)
    if images is None or indices is None:
        st.caption(f"The images cannot be shown: {as_markdown(problem)}")
        rows = [
            {"image": row["image"], "actual class": row["true"], "predicted class": row["predicted"]}
            | {"confidence": row["confidence"]}
            for row in (_row(predictions, position) for position in shown.tolist())
        ]
        st.dataframe(
            with_percentages(rows, "confidence"),
            hide_index=True,
            column_config={"confidence": percent_column()},
            alt="Predictions",
        )
        return
    tiles, opens, folders = [], [], run_folders(run)
    rule, entry = run_rule(run), None if split == OUT_OF_FOLD else run_model(run)
    for index, position in zip(indices.tolist(), shown.tolist(), strict=True):
        caption = _captions(predictions, position)
        tiles.append((for_display(images.images[index], least=_TILE), *caption))
        identity, about = f"{run.path} {split}", ", ".join(caption)
        opens.append(openable_image(images, index, folders, identity=identity, caption=about, entry=entry, rule=rule))
    st.html(image_grid(tiles, opens))


def _captions(predictions: Predictions, position: int) -> tuple[str, str]:
    row = _row(predictions, position)
    if row["true"] == row["predicted"]:
        return str(row["true"]), percent(row["confidence"])
    return f"{row['true']}", f"predicted as {row['predicted']}, {percent(row['confidence'])}"


def _row(predictions: Predictions, position: int) -> dict[str, Any]:
    return {
        "image": predictions.name_of(position),
        "true": readable(predictions.classes[int(predictions.truth[position])]),
        "predicted": readable(predictions.classes[int(predictions.predicted[position])]),
        "confidence": float(predictions.confidence[position]),
    }


def _split_images(run: RunDir, split: str) -> tuple[ImageSet | None, str]:
    """The images of a split, or of all folds of a cross-validation; or None and the reason."""
    if split == OUT_OF_FOLD:
        return _fold_images(run)
    data = run.read_json(run.environment).get("data", {}) if run.environment.is_file() else {}
    if split not in ("test", "val") or not data.get("spec"):
        return None, "the run does not record its data."
    try:
        parts = _load_parts(str(run.path), run.split.stat().st_mtime_ns if run.split.is_file() else 0)
    except ThirtytwoError as error:
        return None, _reason(error)
    return (parts.test if split == "test" else parts.val), "the run has no such split."


def _fold_images(run: RunDir) -> tuple[ImageSet | None, str]:
    """The images of all folds of a cross-validation, or None and the reason."""
    try:
        return _load_folds(str(run.path), run.predictions(OUT_OF_FOLD).stat().st_mtime_ns), ""
    except ThirtytwoError as error:
        return None, _reason(error)


def _reason(error: ThirtytwoError) -> str:
    """Why the images of a run cannot be shown, and what to do."""
    advice = "The page Data lists these files." if isinstance(error, UnreadableImagesError) else _MOVED
    return f"{plain(error.message, added=False)} {advice}"


def _show_data() -> None:
    known = ", ".join(f"`{name}`" for name in DATASETS.names())
    with st.form("data-form", border=False):
        spec = st.text_input(data_label(), key="data-spec", placeholder="my-images", help=what_to_enter())
        wanted = st.form_submit_button("Show")
    show_chooser("data-spec")
    if not spec.strip():
        st.info(what_to_enter(), icon=":material/folder_open:")
        return
    spec = entered(spec)
    if not library.settings.is_local and spec.partition("?")[0] not in DATASETS.names():
        st.error(f"From another computer, only known data sets can be shown: {known}.")
        return
    if wanted:  # its files may have changed since it was shown
        _load_dataset.clear(spec)
    data = _load_dataset(spec)
    _show_overview(data, spec)
    _show_samples(data, spec)
    st.subheader("Classes", anchor=False)
    st.dataframe(
        [
            {"class": readable(row.name)} | {SPLIT_NAMES.get(name, name): count for name, count in row.counts.items()}
            for row in class_counts(data)
        ],
        hide_index=True,
        alt="Images of each class",
    )


def _show_overview(data: DataSet, spec: str) -> None:
    """Show the size of a data set and notes such as the files that were skipped."""
    counts = ", ".join(f"{len(part):,} {SPLIT_NAMES.get(name, name)}" for name, part in data.stored.items())
    name = as_markdown(short_name(spec, data.name))
    st.markdown(f"**{name}**: {len(data.classes)} classes; {counts} images, {_size_of_images(data)}")
    for note in data.skipped[:_MAX_NOTES]:
        text = as_markdown(in_plain_words(plain(f"{capitalized(note)}.", added=False)))
        if note in data.warnings:
            st.warning(f"{text} The page Data has more on this.", icon=":material/warning:")
        else:
            st.caption(text)


def _size_of_images(data: DataSet) -> str:
    """The size of the images as they are stored, and as they are shown where their files are not at hand."""
    side = data.train.images.shape[1]
    decoded = f"{side}×{side} pixels"
    if not data.sizes:
        return f"at {decoded}"
    widths, heights = zip(*data.sizes, strict=True)
    size = f"at {widths[0]}×{heights[0]} pixels"
    if len(data.sizes) > 1:
        size = f"{_range(widths)} pixels wide and {_range(heights)} high"
    is_whole = data.train.files is not None or set(data.sizes) == {(side, side)}
    return size if is_whole else f"{size}, shown at {decoded}"


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"


def _show_samples(data: DataSet, spec: str) -> None:
    """Show sample images of the split and class that the user chooses."""
    parts = data.stored
    first, second = st.columns(2)
    part = parts[first.selectbox("Split", list(parts), format_func=_shown_split, key="data-part")]
    shown = _shown(data.classes)
    name = second.selectbox("Class", list(shown), format_func=shown.__getitem__, key="data-class")
    positions = _samples(part, None if name == ANY else data.classes.index(name)).tolist()
    folder = files_folder(spec)
    folders = [] if folder is None else [folder]
    tiles, opens = [], []
    for position in positions:
        label, file = readable(part.classes[int(part.labels[position])]), Path(part.name_of(position)).name
        tiles.append((tile_of(part, position, folders, 2 * _TILE), label, file))
        opens.append(openable_image(part, position, folders, identity=spec, caption=label))
    st.html(image_grid(tiles, opens))


def _samples(part: ImageSet, label: int | None) -> Ints:
    """Positions of random sample images of one class, or of every class if `label` is None."""
    random = np.random.default_rng(0)
    if label is None:
        per_class = max(1, IMAGES_PER_PAGE // len(part.classes))
        groups = [np.flatnonzero(part.labels == number) for number in range(len(part.classes))]
        return np.concatenate([random.permutation(group)[:per_class] for group in groups])[: 2 * IMAGES_PER_PAGE]
    return random.permutation(np.flatnonzero(part.labels == label))[: 2 * IMAGES_PER_PAGE]


def _display_names(runs: Sequence[Path]) -> dict[Path, str]:
    """The name of each run, given by the user or of its directory; with its path where several have the same."""
    given = given_names(library.projects().folder)
    names = {path: given.get(str(RunDir(path).onnx.resolve()), path.resolve().name) for path in runs}
    count = Counter(names.values())
    return {
        path: (name if count[name] == 1 else f"{name} ({path})")
        + (", cross-validation" if is_cross_validation(path) else "")
        for path, name in names.items()
    }


@st.cache_resource(show_spinner="Reading predictions …", max_entries=4)
def _load_predictions(run: str, split: str, modified: int) -> Predictions:
    return RunDir(Path(run)).read_predictions(split)


@st.cache_resource(show_spinner="Loading images …", max_entries=2)
def _load_parts(run: str, modified: int) -> Parts:
    parts = load_run_data(RunDir(Path(run)), library.settings.data_root).parts
    for part in (parts.train, parts.val, parts.test):
        if part is not None:
            release_pages(part.images)
    return parts


@st.cache_resource(show_spinner="Loading images …", max_entries=1)
def _load_folds(path: str, modified: int) -> ImageSet:
    runs = [RunDir(Path(path) / run["directory"]) for run in read_summary(Path(path))["runs"]]
    images = load_out_of_fold(runs, library.settings.data_root)
    release_pages(images.images)
    return images


@st.cache_resource(show_spinner="Loading images …", max_entries=2)
def _load_dataset(spec: str) -> DataSet:
    data = load_dataset(spec, data_root=library.settings.data_root, skip_unreadable=True)  # divided as in training
    for part in data.stored.values():
        release_pages(part.images)
    return data
