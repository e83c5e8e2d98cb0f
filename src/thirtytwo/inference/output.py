"""Predictions as files: JSON and CSV."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO, TypeAlias

from thirtytwo.text import CsvWriter

if TYPE_CHECKING:
    from thirtytwo.inference.classifier import Prediction, UnreadableImage

    Result: TypeAlias = Prediction | UnreadableImage


def write_json(results: Iterable[Result], stream: TextIO, top: int) -> None:
    """Write a JSON list, one entry per line, as results arrive; ASCII only unless the stream is UTF-8."""
    ascii_only = codecs.lookup(stream.encoding or "utf-8").name != "utf-8"
    stream.write("[")
    for index, result in enumerate(results):
        stream.write(",\n" if index else "\n")
        stream.write(json.dumps(result.as_dict(), ensure_ascii=ascii_only, allow_nan=False))
    stream.write("\n]\n")


def write_csv(results: Iterable[Result], stream: TextIO, top: int) -> None:
    """Write one row per image: its top class, then `class_1, confidence_1, …` up to `top`, then the error."""
    from thirtytwo.inference.classifier import UnreadableImage

    ranks = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class", "confidence")]
    writer = CsvWriter(stream)
    writer.writerow(["file", "width", "height", "top", "confidence", "known", *ranks, "error"])
    for result in results:
        if isinstance(result, UnreadableImage):
            writer.writerow([result.file, *[""] * (5 + len(ranks)), result.error])
            continue
        known = "true" if result.known else "false"
        best = [cell for pair in result.predictions for cell in pair]
        writer.writerow([result.file, result.width, result.height, result.top, result.confidence, known, *best, ""])
