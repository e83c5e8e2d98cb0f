"""The charts of the report as image files, for papers and slides."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from thirtytwo.errors import require
from thirtytwo.evaluation.calibration import stored_reliability, was_not_calibrated
from thirtytwo.evaluation.metrics import confusion_matrix, reliability
from thirtytwo.evaluation.sections import LineFigure
from thirtytwo.images.fonts import font_families
from thirtytwo.io import atomic_write
from thirtytwo.report.run_record import RunRecord
from thirtytwo.report.views import CURVES, MatrixView, history_series, readable_on, reliability_bins
from thirtytwo.text import abbreviate, as_printable, readable_names

INK, MUTED, ACCENT, WARM = "#22262b", "#69707a", "#1f6078", "#b4532a"
STYLE: dict[str, Any] = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.size": 9,
    "legend.frameon": False,
    "svg.hashsalt": "thirtytwo",
    "text.parse_math": False,  # a class name may contain "$"
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def empty_figure(width: float, height: float) -> Any:
    """An empty figure; `width` and `height` are in inches."""
    figure = require("matplotlib.figure", "train").Figure(figsize=(width, height), layout="constrained")
    require("matplotlib.backends.backend_agg", "train").FigureCanvasAgg(figure)
    return figure


Drawings: TypeAlias = Sequence[tuple[str, Callable[[], Any]]]
"""Figures by name, each as a function that draws it."""
FORMATS: Mapping[str, Mapping[str, Any]] = {".png": {"dpi": 150}, ".svg": {"metadata": {"Date": None}}}
"""Formats of the figures with the options of Matplotlib's `savefig`."""


def save_figures(
    directory: Path, drawings: Drawings, texts: Iterable[str] = (), suffixes: Sequence[str] = tuple(FORMATS)
) -> list[Path]:
    """Draw each figure in the common style and save it as `name.png` and `name.svg`; returns the written paths.

    Fonts are chosen so that they have the characters of `texts`, as far as this machine has such fonts.
    """
    matplotlib = require("matplotlib", "train")
    written = []
    with matplotlib.rc_context(STYLE | {"font.family": font_families(texts)}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        for name, draw in drawings:
            figure = draw()
            figure.get_layout_engine().execute(figure)
            figure.set_layout_engine(None)  # computed once, not for each file
            for suffix in suffixes:
                path = directory / (name + suffix)
                with atomic_write(path) as temporary:
                    figure.savefig(temporary, **FORMATS[suffix])
                written.append(path)
    return written


SERIES = ("#1f6078", "#b4532a", "#6b8e3d", "#7a5c9e", "#c08a1e", "#4a4f55")
MARKERS = ("o", "s", "^", "D", "v", "P")
MAX_NAMED_CLASSES = 120
MAX_LETTERS = 40
"""Letters of a class name that figures show."""
_INCHES_PER_LETTER = 0.6 / 72
"""Average width of a letter, in inches per point of the font size."""


def write_figures(record: RunRecord) -> list[Path]:
    """Write every figure that the run has data for to `figures/`; returns the written paths."""
    return save_figures(record.run.figures, drawings_of(record), record.classes)


def drawings_of(record: RunRecord) -> Drawings:
    """Every figure that the run has data for."""
    kinds: list[tuple[str, Callable[[RunRecord], Any]]] = []
    if record.history:
        kinds.append(("curves", draw_curves))
    if record.predictions is not None:
        kinds += [("confusion", draw_confusion), ("reliability", draw_reliability)]
    if record.metrics is not None:
        kinds.append(("f1", draw_f1))
    lines = [(evaluator.key, section.figure) for evaluator, section in record.sections if section.figure is not None]
    return [
        *((name, partial(draw, record)) for name, draw in kinds),
        *((key, partial(draw_lines, figure)) for key, figure in lines),
    ]


def draw_curves(record: RunRecord) -> Any:
    """Plot loss and accuracy of training and validation over epochs."""
    figure = empty_figure(8.0, 2.7)
    for place, (what, title) in enumerate(reversed(CURVES), start=1):
        axes = figure.add_subplot(1, 2, place)
        for part, name, color, dashes in (
            ("train", "training", MUTED, "--"),
            ("val", "validation", ACCENT, "-"),
        ):
            points = history_series(record.history, f"{part}_{what}")
            if points:
                marker = "o" if len(points) == 1 else ""
                axes.plot(*zip(*points, strict=True), dashes, color=color, label=name, marker=marker)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if axes.lines:
            axes.legend()
    return figure


def draw_confusion(record: RunRecord) -> Any:
    """Plot the confusion matrix, normalized by true class, with errors on a separate color scale."""
    assert record.predictions is not None
    view = MatrixView.of(confusion_matrix(record.predictions), record.predictions.classes, record.superclasses)
    names = _labels(view.names)
    matrix, share, width = view.counts, view.shares, len(names)
    diagonal = np.eye(width, dtype=bool)
    size = 9 if width <= 20 else 6
    labels = max(map(len, names)) * size * _INCHES_PER_LETTER if width <= MAX_NAMED_CLASSES else 0.0
    side = float(np.clip(2.4 + 0.28 * width, 3.9, 14.4)) + labels
    figure = empty_figure(side, side)
    axes = figure.add_subplot()
    right = axes.imshow(np.ma.masked_array(share, ~diagonal), cmap="Blues", vmin=0, vmax=1.25)
    errors = np.ma.masked_array(np.sqrt(share), diagonal | (matrix == 0))
    wrong = axes.imshow(errors, cmap="Oranges", vmin=0, vmax=(float(errors.max()) if errors.count() else 1.0) * 1.25)
    if width <= 20:
        for row, column in np.ndindex(matrix.shape):
            if matrix[row, column] == 0:
                axes.text(column, row, "0", ha="center", va="center", color=MUTED, fontsize=7)
                continue
            image = right if row == column else wrong
            color = readable_on(image.cmap(image.norm(image.get_array()[row, column])))
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color, fontsize=7)
    if width <= MAX_NAMED_CLASSES:
        axes.set_xticks(range(width), names, rotation=90, fontsize=size)
        axes.set_yticks(range(width), names, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"Confusion matrix on {record.split}, n = {len(record.predictions.truth):,}")
    return figure


def _labels(names: Iterable[str]) -> list[str]:
    """Names as figures show them: readable, and without control characters, which are not allowed in SVG."""
    return abbreviate([as_printable(name) for name in readable_names(names)], MAX_LETTERS)


def draw_reliability(record: RunRecord) -> Any:
    """Plot accuracy against confidence with 95 % intervals, and the number of images per bin, before and after."""
    assert record.predictions is not None
    measured = (record.metrics or {}).get("calibration") or {}
    before = None if was_not_calibrated(measured) else stored_reliability(measured)
    after = reliability(record.predictions)
    panels = [("", after)] if before is None else [("before calibration", before), ("after", after)]
    figure = empty_figure(4.6 * len(panels), 5.4)
    rows = figure.subplots(
        2, len(panels), sharex=True, sharey="row" if before is not None else False, height_ratios=[4, 1], squeeze=False
    )
    for (when, found), above, below in zip(panels, *rows, strict=True):
        bins = reliability_bins(found)
        confidence, accuracy = (np.array([getattr(one, name) for one in bins]) for name in ("confidence", "accuracy"))
        ends = np.array([one.interval for one in bins])
        above.plot([0, 1], [0, 1], ":", color=MUTED)
        errors = np.maximum(0.0, np.abs(ends.T - accuracy))
        above.errorbar(confidence, accuracy, yerr=errors, fmt="o", color=ACCENT, markersize=4, elinewidth=1)
        above.set_title(f"{when.capitalize() or f'Reliability on {record.split}'}, ECE {found.ece:.4f}")
        below.bar(found.edges[:-1], found.counts, width=np.diff(found.edges) * 0.92, align="edge", color=MUTED)
        below.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        below.set_xlabel("confidence")
    rows[0][0].set_ylabel("accuracy")
    rows[1][0].set_ylabel("images")
    return figure


def draw_lines(figure_of: LineFigure) -> Any:
    """Plot the lines of every panel; dotted: the reference."""
    figure = empty_figure(2.6 * len(figure_of.panels) + 0.6, 3.4)
    panels = figure.subplots(1, len(figure_of.panels), sharey=True, squeeze=False)[0]
    for panel, axes in zip(figure_of.panels, panels, strict=True):
        axes.axhline(figure_of.reference, linestyle=":", color=MUTED)
        for (name, values), color, marker in zip(panel.lines, cycle(SERIES), cycle(MARKERS), strict=False):
            axes.plot(figure_of.x, values, marker=marker, color=color, markersize=4, label=name)
        axes.set_title(panel.title)
        axes.set_xticks(figure_of.x)
        axes.set_xlabel(figure_of.x_label)
        axes.legend(fontsize=8, handlelength=1.6)
    panels[0].set_ylim(0, 1)
    panels[0].set_ylabel(figure_of.y_label)
    return figure


def draw_f1(record: RunRecord) -> Any:
    """Plot F1 of every class, highest first."""
    assert record.metrics is not None
    rows = sorted(record.metrics["per_class"], key=lambda row: row["f1"] or 0.0)
    width = len(rows)
    labels = min(MAX_LETTERS, max((len(row["class"]) for row in rows), default=0)) * 9 * _INCHES_PER_LETTER
    figure = empty_figure(5.0 + labels, float(np.clip(1.2 + 0.2 * width, 2.4, 20.0)))
    axes = figure.add_subplot()
    axes.barh(range(width), [row["f1"] or 0.0 for row in rows], color=ACCENT, height=0.7)
    size = 9 if width <= 40 else 7
    if width <= MAX_NAMED_CLASSES:
        axes.set_yticks(range(width), _labels(row["class"] for row in rows), fontsize=size)
    else:
        axes.set_yticks([])
    axes.set_ylim(-0.6, width - 0.4)
    axes.set_xlim(0, 1)
    axes.set_title(f"F1 of each class on {record.split}")
    return figure
