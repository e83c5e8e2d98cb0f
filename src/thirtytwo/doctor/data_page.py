"""The page of a data set: one self-contained HTML file, for screen, phone and print, light and dark."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.config.recommend import is_small
from thirtytwo.data.explore import HOW_TO_KEEP_ENDS
from thirtytwo.data.types import ImageSet
from thirtytwo.doctor.data_charts import MOST_SIZES, channel_charts, map_chart, ratio_chart, sizes_chart, spread_chart
from thirtytwo.doctor.overview import Overview
from thirtytwo.doctor.shapes import Formats, Shapes
from thirtytwo.doctor.spread import Spread, extreme_positions
from thirtytwo.images.pixels import Pixels
from thirtytwo.images.render import is_pixelated
from thirtytwo.report.gallery import Augmented, augmented_rows
from thirtytwo.report.templating import render_template
from thirtytwo.report.thumbnails import Storage, Thumbnail, thumbnails
from thirtytwo.text import as_printable, capitalized, counted, percent, readable, readable_names, size

SAMPLES_BUDGET, MEANS_BUDGET, EXTREMES_BUDGET, ORIGINALS_BUDGET = 4_800_000, 1_500_000, 500_000, 4_000_000
"""Maximum number of characters of the page for sample images, mean images, extremes, and those shown from originals."""
ORIGINAL_SIDE = 512
"""Largest side of an image that is shown from its original, in pixels."""
MOST_ORIGINALS = 400
"""Largest number of images that are shown from their originals, apart from extremes and marked ones."""
_ORIGINALS = tuple(
    Storage(side, quality)
    for side, quality in ((ORIGINAL_SIDE, 80), (448, 78), (400, 76), (320, 75), (256, 72), (192, 70), (160, 65))
)
SHOWN = 16
"""Images shown of each class at first: on a wide screen one row, or two of photographs."""
MOST_COLORS = 24
"""Number of groups up to which the legend of the map lists them."""
MOST_MARKED = 24
"""Images among those of another class that are listed below the map."""
MOST_SAMPLED = 200
"""Number of classes up to which the tree of superclasses has a sample image of each, instead of the mean image."""
MOST_LISTED = 8
"""Sizes, formats and modes that are listed."""
_PALETTE = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
)
_GOLDEN_ANGLE = 137.5


def render_data_page(
    found: Overview,
    train: ImageSet,
    *,
    samples: Augmented | None = None,
    recipe: str = "",
    originals: Mapping[int, Pixels] | None = None,
) -> str:
    """Render the page of a data set as HTML. The template escapes all names; charts escape their own.

    Args:
        found: the overview.
        train: the training images that positions of the overview refer to.
        samples: training images before and after augmentation; None: none are shown.
        recipe: name of the recipe that augmented them.
        originals: larger copies of the images at `original_positions`, uint8 `(H, W, 3)`, by position in `train`; they
            are shown instead of those in `train`.
    """
    classes = _shown_names(found.classes)
    shown = _Shown.of(found, train, originals or {})
    context = {
        "name": as_printable(found.name),
        "classes": classes,
        "splits": list(found.splits.items()),
        "total": sum(found.splits.values()),
        "side": found.side,
        "large": not is_small(found.side),
        "whole": bool(shown.originals),
        "facts": _facts(found),
        "notes": [capitalized(as_printable(note)) for note in found.notes],
        "class_rows": _class_rows(found),
        "balance": _balance(found),
        "tree": _tree(found, shown),
        "kinds": _kinds(found, shown),
        **_map(found, shown),
        "channels": list(zip(("Red", "Green", "Blue"), found.levels.mean, found.levels.std, strict=True)),
        "channel_charts": channel_charts(found.levels),
        "spreads": [_spread(one, shown) for one in found.spreads],
        "cut": "" if found.cut is None else f"{found.cut} {HOW_TO_KEEP_ENDS}",
        "shapes": None if found.shapes is None else _shapes(found.shapes, found.side),
        "formats": None if found.formats is None else _formats(found.formats),
        "augmented": [] if samples is None else augmented_rows(samples, tuple(classes)),
        "recipe": as_printable(recipe),
    }
    return render_template("data.html.j2", context)


def original_positions(found: Overview, train: ImageSet) -> list[int]:
    """Positions in the training images of those that the page shows from their originals, where it is given these.

    They are the first ones of each class, the extremes, and the marked ones that are listed.
    """
    each = max(1, min(SHOWN, MOST_ORIGINALS // len(found.classes)))
    labels = train.labels[found.sample]  # increasing
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)
    first = np.argsort(rank, kind="stable")[: int((rank < each).sum())]
    marked = found.map.crossing[:MOST_MARKED]
    first = first[:MOST_ORIGINALS]
    chosen = [*found.sample[first].tolist(), *extreme_positions(found.spreads), *found.sample[marked].tolist()]
    return list(dict.fromkeys(chosen))


@dataclass(frozen=True, eq=False)
class _Shown:
    """The images of the page.

    `samples` are those of `Overview.sample` by their place there, of which some may be missing; `originals` are the
    places of those that are shown from their originals; `means` are those of the classes; `extremes` by position in the
    training images; `names` and `labels` describe the samples.
    """

    samples: Mapping[int, Thumbnail]
    originals: frozenset[int]
    means: list[Thumbnail]
    extremes: dict[int, Thumbnail]
    names: list[str]
    labels: npt.NDArray[np.int64]
    by_class: Mapping[int, list[int]]
    train: ImageSet

    @classmethod
    def of(cls, found: Overview, train: ImageSet, originals: Mapping[int, Pixels]) -> _Shown:
        """Encode the images."""
        chosen = train.take(found.sample)
        at = {position: place for place, position in enumerate(found.sample.tolist())}
        large = _encoded_originals(
            {one: originals[one] for one in original_positions(found, train) if one in originals}
        )
        whole = {at[position]: thumbnail for position, thumbnail in large.items() if position in at}
        rest = [place for place in range(len(chosen)) if place not in whole]
        decoded = thumbnails(chosen.images[np.array(rest, dtype=np.int64)], SAMPLES_BUDGET)
        samples = whole | dict(zip(rest, decoded, strict=False))
        by_class: dict[int, list[int]] = defaultdict(list)
        for place in sorted(samples):
            by_class[int(chosen.labels[place])].append(place)
        positions = [position for position in extreme_positions(found.spreads) if position not in large]
        extremes = thumbnails(train.images[np.array(positions, dtype=np.int64)], EXTREMES_BUDGET)
        return cls(
            samples,
            frozenset(whole),
            thumbnails(found.means, MEANS_BUDGET),
            large | dict(zip(positions, extremes, strict=False)),
            [as_printable(chosen.name_of(place)) for place in range(len(chosen))],
            chosen.labels,
            by_class,
            train,
        )


def _encoded_originals(originals: Mapping[int, Pixels]) -> dict[int, Thumbnail]:
    """Thumbnails of originals by position; tiny ones are stored as other tiny images are."""
    storages = None if all(map(is_pixelated, originals.values())) else _ORIGINALS
    found = thumbnails(list(originals.values()), ORIGINALS_BUDGET, storages)
    return dict(zip(originals, found, strict=False))


def _facts(found: Overview) -> list[tuple[str, str]]:
    """Terms and descriptions beside the number of training images."""
    rows = [(name, counted(count, "image")) for name, count in found.splits.items() if name != "train"]
    groups = len(set(found.superclasses.values()))
    rows.append(("classes", f"{len(found.classes):,}" + (f" in {groups:,} superclasses" if groups else "")))
    if found.shapes is not None:
        width, height, _ = found.shapes.sizes[0]
        same = len(found.shapes.sizes) == 1
        text = f"{width:,}×{height:,}, all images" if same else "{:,}×{:,} in the median".format(*found.shapes.median())
        rows.append(("image size", text))
    return rows


def _class_rows(found: Overview) -> list[dict[str, Any]]:
    """One row for each class: number of images by split, and the share of the largest one for a bar."""
    most = max((row.counts["train"] for row in found.counts), default=0)
    return [
        {
            "index": index,
            "name": as_printable(row.name),
            "superclass": as_printable(found.superclasses.get(row.name, "")),
            "counts": list(row.counts.values()),
            "bar": row.counts["train"] / max(1, most),
        }
        for index, row in enumerate(found.counts)
    ]


def _balance(found: Overview) -> str:
    """A sentence on how the training images are distributed over the classes."""
    counts = {row.name: row.counts["train"] for row in found.counts}
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[least] == counts[most]:
        return f"Every class has {counts[most]:,} training images."
    few, many, shown = counts[least], counts[most], dict(zip(counts, readable_names(counts), strict=True))
    ratio = f", {many / few:.1f} times as many" if few else ""
    return as_printable(f"{shown[least]} has the fewest training images, {few:,}; {shown[most]} has {many:,}{ratio}.")


def _shown_name(name: str) -> str:
    """The name of a class as the page shows it."""
    return as_printable(readable(name))


def _shown_names(names: Iterable[str]) -> list[str]:
    return [as_printable(name) for name in readable_names(names)]


def _image(place: int, shown: _Shown, classes: Sequence[str]) -> dict[str, Any]:
    """A sample image; `classes` are the names that the page shows."""
    thumbnail = shown.samples[place]
    name = f"{classes[int(shown.labels[place])]}, {shown.names[place]}"
    return {"place": place, "source": thumbnail.source, "pixelated": thumbnail.pixelated, "name": name}


def _kinds(found: Overview, shown: _Shown) -> list[dict[str, Any]]:
    """One block for each class, those of a superclass together: mean image, sample images, and more of them."""
    order = sorted(range(len(found.classes)), key=lambda index: found.superclasses.get(found.classes[index], ""))
    blocks, names = [], _shown_names(found.classes)
    for index in order:
        images = [_image(place, shown, names) for place in shown.by_class.get(index, [])]
        blocks.append(
            {
                "index": index,
                "name": names[index],
                "superclass": _shown_name(found.superclasses.get(found.classes[index], "")),
                "count": found.counts[index].counts["train"],
                "mean": shown.means[index] if index < len(shown.means) else None,
                "images": images[:SHOWN],
                "more": images[SHOWN:],
            }
        )
    return blocks


def _tree(found: Overview, shown: _Shown) -> list[dict[str, Any]]:
    """The superclasses with their classes, each with an image; empty where the data has none."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    classes = _shown_names(found.classes)
    for index, name in enumerate(found.classes):
        if name in found.superclasses:
            groups[_shown_name(found.superclasses[name])].append(
                {"index": index, "name": classes[index], "image": _small_image(index, shown)}
            )
    return [{"name": name, "classes": groups[name]} for name in sorted(groups)]


def _small_image(index: int, shown: _Shown) -> Thumbnail | None:
    """An image of a class for a list; one that is not from its original, since it is on the page a second time."""
    small = [place for place in shown.by_class.get(index, []) if place not in shown.originals]
    if small and len(shown.train.classes) <= MOST_SAMPLED:
        return shown.samples[small[0]]
    return shown.means[index] if index < len(shown.means) else None


def _map(found: Overview, shown: _Shown) -> dict[str, Any]:
    """The map, its legend, what the script needs, and the marked images."""
    (groups, names), classes = _groups(found), _shown_names(found.classes)
    colors = [_color(index, len(names)) for index in range(len(names))]
    chart, points = map_chart(found.map, groups[shown.labels], colors)
    data = {
        "points": points,
        "labels": shown.labels.tolist(),
        "groups": groups.tolist(),
        "colors": colors,
        "other": found.map.other.tolist(),
        "votes": found.map.votes.tolist(),
        "neighbors": found.map.neighbors,
        "marked": found.map.crossing.tolist(),
        "names": shown.names,
        "classes": classes,
    }
    marked = [place for place in found.map.crossing.tolist() if place in shown.samples]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    legend = list(zip(names, colors, strict=True)) if 1 < len(names) <= MOST_COLORS else []
    return {
        "map_chart": chart,
        "map_text": text,
        "map_count": len(found.sample),
        "map_model": found.map.model,
        "neighbors": found.map.neighbors,
        "legend": legend,
        "selectable": len(found.classes) > 1 and (len(legend) != len(found.classes)),
        "marked_count": len(found.map.crossing),
        "marked": [
            _image(place, shown, classes)
            | {
                "label": classes[int(shown.labels[place])],
                "other": classes[int(found.map.other[place])],
                "votes": int(found.map.votes[place]),
            }
            for place in marked[:MOST_MARKED]
        ],
    }


def _groups(found: Overview) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The color group of each class, int64 `(C,)`, and the names of the groups: superclasses where there are any."""
    classes = _shown_names(found.classes)
    above = found.superclasses
    names = [
        _shown_name(above[name]) if name in above else own for name, own in zip(found.classes, classes, strict=True)
    ]
    order = sorted(set(names)) if found.superclasses else names
    places = {name: place for place, name in enumerate(order)}
    return np.array([places[name] for name in names], dtype=np.int64), list(order)


def _color(index: int, count: int) -> str:
    """Color of a group, distinct from the others on light and dark paper as far as their number permits."""
    if count <= len(_PALETTE):
        return _PALETTE[index]
    return f"hsl({index * _GOLDEN_ANGLE % 360:.0f} {(75, 50)[index % 2]}% {(48, 62, 55)[index % 3]}%)"


def _spread(found: Spread, shown: _Shown) -> dict[str, Any]:
    """The chart of a statistic, and the images at its ends."""
    ends = ((found.lowest, found.lowest_values), (found.highest, found.highest_values))
    words = {"brightness": ("Darkest", "Brightest"), "contrast": ("Lowest contrast", "Highest contrast")}
    titles = words.get(found.name, (f"Lowest {found.name}", f"Highest {found.name}"))
    classes = _shown_names(shown.train.classes)
    return {
        "chart": spread_chart(found),
        "ends": [
            {
                "title": title,
                "images": [
                    {
                        "source": shown.extremes[position].source,
                        "pixelated": shown.extremes[position].pixelated,
                        "label": classes[int(shown.train.labels[position])],
                        "name": as_printable(shown.train.name_of(position)),
                        "value": f"{value:#.3g}".rstrip("."),
                    }
                    for position, value in zip(positions.tolist(), values.tolist(), strict=True)
                    if position in shown.extremes
                ],
            }
            for title, (positions, values) in zip(titles, ends, strict=True)
        ],
    }


def _shapes(found: Shapes, side: int) -> dict[str, Any]:
    """Sizes and aspect ratios; charts only where images differ in size."""
    total, several = found.images, len(found.sizes) > 1
    return {
        "side": side,
        "different": len(found.sizes),
        "drawn": min(len(found.sizes), MOST_SIZES),
        "scattered": found.are_scattered(MOST_LISTED),
        "by_area": [(name, f"{width:,}×{height:,}") for name, width, height in found.by_area()],
        "sizes": [
            (f"{width:,}×{height:,}", f"{count:,}", percent(count / total))
            for width, height, count in found.sizes[:MOST_LISTED]
        ],
        "orientations": [
            (name, f"{count:,}", percent(count / total))
            for name, count in (("Portrait", found.portrait), ("Square", found.square), ("Landscape", found.landscape))
        ],
        "charts": [sizes_chart(found), ratio_chart(found)] if several else [],
    }


def _formats(found: Formats) -> dict[str, Any]:
    files = sum(count for _, count in found.formats)
    modes = [(f"mode {mode}", count) for mode, count in found.modes[:MOST_LISTED]]
    return {
        "rows": [
            (kind, f"{count:,}", percent(count / files)) for kind, count in [*found.formats[:MOST_LISTED], *modes]
        ],
        "sizes": f"{size(found.total_bytes)} in {files:,} files; the median file has {size(found.median_bytes)}, "
        f"the largest {size(found.largest_bytes)}.",
        "rotated": found.rotated,
    }
