"""The split of a run's data as recorded in `split.json`, by content hash, and how it is restored.

Only this module reads the split of a run: a test image of the run stays a test image when it is renamed or images are
added, and a training image never becomes one.
"""

from __future__ import annotations

import hashlib
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.load import absolute, load_dataset
from thirtytwo.data.split import Parts, Positions, concatenate
from thirtytwo.data.types import DataSet, ImageSet, Together
from thirtytwo.errors import DataError, RunError, ThirtytwoError, UnknownNameError
from thirtytwo.images.content import Hashes, as_text, from_text
from thirtytwo.rundir import RunDir
from thirtytwo.text import counted, listing

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class RunData:
    """A run's data as it is now, divided as when the run was trained.

    Attributes:
        dataset: the data set as stored.
        parts: the images that still exist, with the classes and `rows` of the run.
        missing: names of the images that no longer exist, by split.
        misplaced: names of those that exist, but now have a class that the run does not know, by that class.
        lost: number of images that are missing or misplaced, by split.
        new: names of the images in no split of the run.
    """

    dataset: DataSet
    parts: Parts
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    misplaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    new: tuple[str, ...] = ()

    def changes(self) -> Iterator[str]:
        """Sentences that describe changes since training."""
        for name, moved in self.misplaced.items():
            images = f"{counted(len(moved), 'image')} of the run"
            verb = "is" if len(moved) == 1 else "are"
            yield f"{images} {verb} now in the class {name!r}, which it was not trained on: {_names(moved)}"
        for name, names in self.missing.items():
            if names:
                images = f"{counted(len(names), f'{name} image')} of the run"
                yield f"{images} missing or no longer readable in {self.dataset.name}: {_names(names)}"
        if self.new:
            yield f"{counted(len(self.new), 'image')} new, in no split of the run: {_names(self.new)}"


def _names(names: Sequence[str]) -> str:
    return listing(names, 5, quoted=False)


def split_record(
    parts: Parts,
    recipe: Recipe,
    unused: Hashes,
    seen_before: Mapping[str, Any],
    together: Together | None = None,
    *,
    own_val: bool = False,
) -> dict[str, Any]:
    """Content of `split.json`: content hash, row and file of each image by split, and the number of test evaluations.

    Args:
        parts: the images of the run.
        recipe: recipe by which they were divided.
        unused: hashes of the images of the data set that are in no split.
        seen_before: training images of the runs that this one builds on (`workflows.provenance`).
        together: near-duplicates that were kept on one side; None: they were not searched for.
        own_val: whether the validation images are those of the data's own split, rather than held out of train.
    """
    record: dict[str, Any] = {
        "seed": recipe.data.split_seed,
        "val_fraction": recipe.data.val_fraction,
        "train_on": recipe.data.train_on,
        "group_by": recipe.data.group_by,
        "keep_together": recipe.data.keep_together,
        "near_duplicate_groups": None if together is None else len(together.sizes),
        "near_duplicates": None if together is None else int(together.sizes.sum()),
        "folds": recipe.data.folds,
        "fold": recipe.data.fold,
        "n_train": len(parts.train),
        "n_val": len(parts.val) if parts.val is not None else 0,
        "n_test": len(parts.test),
        "own_val": own_val,
        "val_rows": parts.val.rows.tolist() if parts.val is not None else [],
        "test_evaluations": 0,
    }
    for name, images in (("train", parts.train), ("val", parts.val), ("test", parts.test)):
        record[name] = _part_record(images, labels=bool(recipe.data.fix_plan))
    return record | {"unused": as_text(np.unique(unused)), "seen_before": dict(seen_before)}


def content_of(rows: Positions, hashes: Hashes) -> str:
    """Hash of the content of images by their rows, whatever their order and size: 32 hexadecimal digits."""
    order = np.argsort(rows, kind="stable")
    table = np.stack([rows[order].astype(np.uint64), hashes[order]])
    return hashlib.blake2b(table.astype("<u8").tobytes(), digest_size=16).hexdigest()


def unused_of(dataset: DataSet, parts: Parts) -> Hashes:
    """Hashes of the images of a data set that are in no split."""
    every = np.concatenate([*(images.hashes for images in dataset.stored.values()), dataset.thinned])
    taken = np.concatenate([images.hashes for images in (parts.train, parts.val, parts.test) if images is not None])
    return np.setdiff1d(every, taken)


def recorded_hashes(run: RunDir, part: Literal["train", "val", "test"]) -> Hashes | None:
    """Hashes of the images in one split of a run; None where the run recorded none.

    Raises:
        RunError: the record is damaged.
    """
    record = run.read_json(run.split) if run.split.is_file() else {}
    return _hashes(run, record[part]) if part in record else None


def trained_on(run: RunDir) -> Hashes | None:
    """Hashes of the training images of a run and of the runs it started from; None where the run recorded none.

    Raises:
        RunError: the record is damaged.
    """
    own = recorded_hashes(run, "train")
    if own is None:
        return None
    before = run.read_json(run.split).get("seen_before") or {"hashes": []}
    return np.union1d(own, _hashes(run, before))


def load_run_data(
    run: RunDir,
    data_root: Path | None = None,
    *,
    image_size: int | Literal["auto"] | None = None,
) -> RunData:
    """Load a run's data from its original location, divided as in the run.

    Args:
        run: a run directory.
        data_root: folder in which known data sets are searched first.
        image_size: side of the images in pixels; by default that of the recipe.

    Raises:
        DataError: the data is missing, or the location holds other data.
        RunError: the run did not record the content of its images, and its split cannot be restored otherwise.
    """
    about = run.read_json(run.environment)["data"]
    places = list(dict.fromkeys([about.get("path") or about["spec"], about["spec"]]))
    problem: ThirtytwoError | None = None
    for place in places:
        try:
            return find_again(run, load_as_stored(run, place, data_root, image_size=image_size))
        except (DataError, UnknownNameError) as error:
            problem = problem or error
            if about.get("path") is None:
                raise
    assert problem is not None
    if isinstance(problem, _OtherClassesError):
        raise problem
    raise DataError(
        f"The data of {run.path}, {about['spec']!r}, cannot be loaded from {places[0]}: {problem.message}",
        f"Give its new location: thirtytwo evaluate {shlex.quote(str(run.path))} --data PATH",
    ) from None


def load_out_of_fold(runs: Sequence[RunDir], data_root: Path | None = None) -> ImageSet:
    """Load the images of a cross-validation: those that one of its runs was tested on and that still exist.

    Args:
        runs: the run of each fold.
        data_root: folder in which known data sets are searched first.

    Raises:
        DataError: the data is missing, or the location holds other data.
        RunError: the record of a run is damaged.
    """
    first = load_run_data(runs[0], data_root)
    images = first.parts.test
    for run in runs[1:]:
        images = concatenate(images, find_again(run, first.dataset).parts.test)
    return images


def load_as_stored(
    run: RunDir, spec: str, data_root: Path | None = None, *, image_size: int | Literal["auto"] | None = None
) -> DataSet:
    """Load any data, as stored, with the image size and resize rule of a run."""
    settings = run.read_recipe().data
    return load_dataset(
        spec,
        data_root=data_root,
        image_size=image_size or settings.image_size,
        resize=settings.resize,
        seed=settings.split_seed,
        whole=True,
        skip_unreadable=settings.skip_unreadable or bool(settings.fix_plan),  # a plan may drop unreadable images
    )


def is_own(run: RunDir, spec: str, dataset: DataSet) -> bool:
    """Whether `dataset`, found at `spec`, is the run's data: some images in the same place, or most elsewhere."""
    about = run.read_json(run.environment)["data"]
    if spec == about["spec"] and about.get("path") is None:
        return True
    same_place = about.get("path") is not None and absolute(spec) == about["path"]
    record = run.read_json(run.split)
    if "train" not in record:
        return same_place or bool(dataset.fingerprint == about["fingerprint"])
    recorded = np.unique(_known(run, record))
    present = np.unique(np.concatenate([images.hashes for images in dataset.stored.values()]))
    shared = len(np.intersect1d(present, recorded))
    return bool(shared) if same_place else 2 * shared > max(len(present), len(recorded))


class _OtherClassesError(DataError):
    """Data has most images of a run, but in classes that it does not know."""


def find_again(run: RunDir, dataset: DataSet) -> RunData:
    """Divide `dataset`, as stored, in the way that the run recorded.

    Raises:
        DataError: it contains none of the run's images.
        RunError: the run recorded no content hashes, and the data has changed since or has no test split.
    """
    record, about = run.read_json(run.split), run.read_json(run.environment)["data"]
    classes = tuple(about["classes"])
    if "train" not in record:
        return _locate_by_row(run, dataset, record, about)
    pool = _HashIndex(dataset, classes)
    found, missing = {}, {}
    for name in PARTS:
        found[name], missing[name] = pool.take(name, record[name], _hashes(run, record[name]))
    recorded = sum(len(record[name]["hashes"]) for name in PARTS)
    if recorded and not any(len(part) for part in found.values()):
        if 2 * sum(map(len, pool.misplaced.values())) > recorded:
            raise _OtherClassesError(
                f"{dataset.name} has the images of {run.path}, but in classes that it was not trained on: "
                f"{listing(pool.misplaced, 5)}. Its classes are {listing(classes, 5)}.",
                "Give the classes the names that they had in training.",
            )
        raise DataError(
            f"None of the {recorded:,} images of {run.path} is in {dataset.name}: it is a different data set.",
            "Use the run's data, or evaluate these images as other data with --data.",
        )
    parts = Parts(found["train"], found["val"] if record["n_val"] else None, found["test"])
    misplaced = {name: tuple(names) for name, names in pool.misplaced.items()}
    lost = {name: len(record[name]["hashes"]) - len(part) for name, part in found.items()}
    return RunData(dataset, parts, missing, misplaced, lost, tuple(pool.others(_known(run, record))))


class _HashIndex:
    """Images of a data set by content hash; each can be taken once.

    Recorded labels, which a plan of fixes may have changed, hold instead of those of the data set. `misplaced` are the
    recorded names of images that could not be taken for their class, by its name.
    """

    def __init__(self, dataset: DataSet, classes: tuple[str, ...]) -> None:
        self._stored, self._classes = dataset.stored, classes
        index = {name: number for number, name in enumerate(classes)}
        self._label = np.array([index.get(name, -1) for name in dataset.classes], dtype=np.int64)
        self._places: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self._names = dataset.classes
        self.misplaced: dict[str, list[str]] = defaultdict(list)
        for name, images in self._stored.items():
            for position, content in enumerate(images.hashes.tolist()):
                self._places[content].append((name, position))

    def take(self, part: str, record: Mapping[str, Any], hashes: Hashes) -> tuple[ImageSet, tuple[str, ...]]:
        """The images of a recorded split, each at most once, and the names of missing ones."""
        files: Sequence[str | None] = record.get("files") or [None] * len(hashes)
        taken: dict[str, list[tuple[int, int]]] = defaultdict(list)
        missing: list[str] = []
        labels = None if record.get("labels") is None else np.array(record["labels"], dtype=np.int64)
        for number, (content, file, row) in enumerate(zip(hashes.tolist(), files, record["rows"], strict=True)):
            places = self._places.get(content, [])
            known = places if labels is not None else [place for place in places if self._class(place) >= 0]
            if not known:
                others = self.misplaced[self._class_name(places[0])] if places else missing
                others.append(file or f"row {row}")
                continue
            best = max(known, key=lambda place: (self._file(place) == file, place[0] == part, self._row(place) == row))
            places.remove(best)
            taken[best[0]].append((number, best[1]))
        return self._images(taken, np.array(record["rows"], dtype=np.int64), labels), tuple(missing)

    def others(self, known: Hashes) -> Iterator[str]:
        """Names of the images whose hashes are not in `known`."""
        for name, images in self._stored.items():
            for position in np.flatnonzero(~np.isin(images.hashes, known)).tolist():
                yield images.name_of(position, name)

    def _file(self, place: tuple[str, int]) -> str | None:
        files = self._stored[place[0]].files
        return None if files is None else files[place[1]]

    def _row(self, place: tuple[str, int]) -> int:
        return int(self._stored[place[0]].rows[place[1]])

    def _class(self, place: tuple[str, int]) -> int:
        """Index of an image's class among those of the run; -1: none of them."""
        return int(self._label[self._stored[place[0]].labels[place[1]]])

    def _class_name(self, place: tuple[str, int]) -> str:
        return self._names[int(self._stored[place[0]].labels[place[1]])]

    def _images(
        self, taken: Mapping[str, list[tuple[int, int]]], rows: Positions, labels: npt.NDArray[np.int64] | None
    ) -> ImageSet:
        """The images taken from each stored split, in the order and with the rows and labels of the record."""
        nothing = next(iter(self._stored.values())).take(np.zeros(0, dtype=np.int64))
        order: list[int] = []
        together = None
        for name, pairs in taken.items():
            some = self._stored[name].take(np.array([position for _, position in pairs], dtype=np.int64))
            order += [number for number, _ in pairs]
            together = some if together is None else concatenate(together, some)
        numbers = np.array(order, dtype=np.int64)
        sorting = np.argsort(numbers, kind="stable")
        images = nothing if together is None else together
        if len(taken) > 1:
            images = images.take(sorting)
        chosen = numbers[sorting]
        own = self._label[images.labels] if labels is None else labels[chosen]
        return replace(images, labels=own, classes=self._classes, rows=rows[chosen])


def _locate_by_row(run: RunDir, dataset: DataSet, record: Mapping[str, Any], about: Mapping[str, Any]) -> RunData:
    """Restore the split of a run that recorded only rows, which is possible as long as the data has not changed."""
    if dataset.fingerprint != about["fingerprint"] or dataset.test is None:
        again = shlex.join(["thirtytwo", "train", str(about["spec"]), "--recipe", str(run.recipe)])
        raise RunError(
            f"{run.path} did not record the content of its images, and its data or split has changed since: its "
            "training images cannot be determined.",
            f"Train it again: {again}",
        )
    everything = np.arange(len(dataset.train))
    held = np.isin(dataset.train.rows, record["val_rows"]) if dataset.val is None else np.zeros(len(everything), bool)
    val = dataset.train.take(everything[held]) if dataset.val is None else dataset.val
    train = dataset.train.take(everything[~held])
    if record["train_on"] == "all" or not record["n_val"]:
        train, val = (dataset.train if dataset.val is None else concatenate(train, val)), val.take(everything[:0])
    return RunData(dataset, Parts(train, val if len(val) else None, dataset.test))


def _known(run: RunDir, record: Mapping[str, Any]) -> Hashes:
    """Hashes of all images of the run's data, whether in a split or not."""
    return np.concatenate(
        [*(_hashes(run, record[name]) for name in PARTS), _hashes(run, {"hashes": record.get("unused", ())})]
    )


def changes_since(run: RunDir, split: Mapping[str, Any]) -> list[str]:
    """Which images of a run are missing, and which are new, in data that would be divided into `split`, as phrases.

    Empty if all images are the same or none is, or if the run did not record them.
    """
    record = run.read_json(run.split) if run.split.is_file() else {}
    if "train" not in record:
        return []
    before, now = _known(run, record), _known(run, split)
    if not np.isin(before, now).any():
        return []
    missing, new = np.setdiff1d(before, now), np.setdiff1d(now, before)
    return [
        f"{counted(len(hashes), 'image')} {what}{_named(run, place, hashes)}"
        for what, place, hashes in (("missing", record, missing), ("new", split, new))
        if len(hashes)
    ]


def _named(run: RunDir, record: Mapping[str, Any], hashes: Hashes) -> str:
    """The first names of the images with these hashes, as far as a record has them: those in no split have none."""
    found = []
    for part in (record[name] for name in PARTS):
        files = part.get("files") or [f"row {row}" for row in part["rows"]]
        found += [files[number] for number in np.flatnonzero(np.isin(_hashes(run, part), hashes)).tolist()]
    return f", such as {listing(found[:3], quoted=False)}" if found else ""


def _part_record(images: ImageSet | None, *, labels: bool) -> dict[str, Any]:
    """Content hash, row and file of each image, and with `labels` its label, which the data may not have."""
    if images is None:
        return {"hashes": [], "rows": []}
    found: dict[str, Any] = {"hashes": as_text(images.hashes), "rows": images.rows.tolist()}
    found |= {} if images.files is None else {"files": list(images.files)}
    return found | ({"labels": images.labels.tolist()} if labels else {})


def _hashes(run: RunDir, record: Mapping[str, Any]) -> Hashes:
    try:
        return from_text(record["hashes"])
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{run.split} is damaged: its hashes cannot be read.", run.restore_hint()) from None
