"""Matplotlib figures in a common style, saved as PNG and SVG."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from thirtytwo.errors import require
from thirtytwo.io import written_whole

INK, MUTED, ACCENT, WARM = "#22262b", "#7a8088", "#1f6078", "#b4532a"
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


def save_figures(directory: Path, drawings: Sequence[tuple[str, Callable[[], Any]]]) -> list[Path]:
    """Draw each figure in the common style and save it as `name.png` and `name.svg`; returns the written paths."""
    matplotlib = require("matplotlib", "train")
    written = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        for name, draw in drawings:
            figure = draw()
            figure.get_layout_engine().execute(figure)
            figure.set_layout_engine(None)  # computed once, not for each file
            for suffix, options in ((".png", {"dpi": 150}), (".svg", {"metadata": {"Date": None}})):
                path = directory / (name + suffix)
                with written_whole(path) as temporary:
                    figure.savefig(temporary, **options)
                written.append(path)
    return written
