"""A project of the page Add classes: class names, images of each, and new images that its model is tried on."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from thirtytwo.app.photos import unseen
from thirtytwo.app.taught_result import Result


class Photo(BaseModel, frozen=True):
    """An image of a class; `problem` is why it cannot be read."""

    name: str
    digest: str
    suffix: str
    problem: str = ""


class PhotoClass(BaseModel, frozen=True):
    """A class of a project; `number` identifies it when its name changes."""

    number: int
    name: str = ""
    photos: tuple[Photo, ...] = ()

    @property
    def readable(self) -> tuple[Photo, ...]:
        """The images that can be read."""
        return tuple(photo for photo in self.photos if not photo.problem)


class Trial(BaseModel, frozen=True):
    """A new image that a taught model is tried on, and what the user said of its class.

    `actual` is the number of its class, as far as known; `excluded` are classes that it does not belong to.
    """

    photo: Photo
    actual: int | None = None
    excluded: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.photo.name

    @property
    def digest(self) -> str:
        """Content hash of the image."""
        return self.photo.digest


class Project(BaseModel, frozen=True):
    """Classes with images, and the model that was taught with them; the methods return changed copies."""

    identity: str = ""
    """Name of its folder; empty before it is stored."""
    name: str = ""
    """What the user named it and its model; empty: by its classes."""
    base: str | None = None
    """Name of the model to start from; None: chosen by the size of the images."""
    classes: tuple[PhotoClass, ...] = (PhotoClass(number=1), PhotoClass(number=2))
    result: Result | None = None
    trials: tuple[Trial, ...] = ()
    """New images that the taught model is tried on, the newest first."""
    removed: int = 0
    """Largest number of a class that was removed; a new class gets another one: marks and undo still name it."""
    created: float = 0.0
    changed: float = 0.0
    """Times of its creation and last change, in seconds since 1970."""

    @property
    def title(self) -> str:
        """Its classes, as a title; empty without a name."""
        return " or ".join(one.name for one in self.classes if one.name)

    def class_name(self, number: int) -> str:
        """The name of a class, or what stands for it while it has none."""
        found = ((one.name or f"class {place}") for place, one in enumerate(self.classes, 1) if one.number == number)
        return next(found, "a removed class")

    @property
    def photos(self) -> tuple[Photo, ...]:
        """The images of all classes."""
        return tuple(photo for one in self.classes for photo in one.photos)

    @property
    def shared(self) -> list[list[tuple[int, Photo]]]:
        """Images that several classes have: of each, the numbers of these classes and the image there."""
        places: dict[str, list[tuple[int, Photo]]] = {}
        for one in self.classes:
            for photo in one.readable:
                places.setdefault(photo.digest, []).append((one.number, photo))
        return [found for found in places.values() if len(found) > 1]

    @property
    def numbers(self) -> set[int]:
        """The numbers of its classes."""
        return {one.number for one in self.classes}

    def find(self, number: int) -> PhotoClass:
        """The class with this number; an empty one if another session removed it."""
        return next((one for one in self.classes if one.number == number), PhotoClass(number=number))

    def with_class(self) -> Project:
        """With one more class."""
        number = max(self.removed, *self.numbers, 0) + 1
        return self.model_copy(update={"classes": (*self.classes, PhotoClass(number=number))})

    def restore_class(self, position: int, found: PhotoClass) -> Project:
        """With a class that was removed."""
        if any(one.number == found.number for one in self.classes):
            return self
        classes = [*self.classes[:position], found, *self.classes[position:]]
        return self.model_copy(update={"classes": tuple(classes)})

    def without_class(self, number: int) -> Project:
        """Without a class."""
        left = tuple(one for one in self.classes if one.number != number)
        removed = self.removed if any(one.number > number for one in left) else max(self.removed, number)
        return self.model_copy(update={"classes": left, "removed": removed})

    def rename(self, number: int, name: str) -> Project:
        """With another name of a class; spaces around it are dropped."""
        return self._with(number, name=" ".join(name.split()))

    def with_photos(self, number: int, photos: Sequence[Photo]) -> Project:
        """With images in a class that are not in it yet; repeated file names get a number."""
        present = self.find(number).photos
        added = unseen(present, photos, lambda photo, name: photo.model_copy(update={"name": name}))
        return self._with(number, photos=(*present, *added))

    def without_photos(self, number: int, digests: Iterable[str]) -> Project:
        """Without some images of a class."""
        gone = set(digests)
        return self._with(number, photos=tuple(one for one in self.find(number).photos if one.digest not in gone))

    def move_photo(self, digest: str, source: int, target: int) -> Project:
        """With an image of a class in another class; unchanged if it is not there, or there is no such other class."""
        moved = [one for one in self.find(source).photos if one.digest == digest]
        if not moved or target not in self.numbers:
            return self
        return self.without_photos(source, [digest]).with_photos(target, moved)

    def with_named_class(self, name: str) -> Project:
        """With a class of this name: the one that has it already, else the first unused one, else a new one."""
        if self.number_of(name) is not None:
            return self
        unused = next((one.number for one in self.classes if not one.name and not one.photos), None)
        if unused is not None:
            return self.rename(unused, name)
        added = self.with_class()
        return added.rename(added.classes[-1].number, name)

    def number_of(self, name: str) -> int | None:
        """Number of the class that has this name, in whatever letters."""
        wanted = comparable_name(name)
        return next((one.number for one in self.classes if one.name and comparable_name(one.name) == wanted), None)

    def with_trials(self, photos: Sequence[Photo]) -> Project:
        """With new images to try the model on; those that are there already are left out."""
        new = [Trial(photo=photo) for photo in photos]
        return self._with_trials([*unseen(self.trials, new, _renamed_trial), *self.trials])

    def restore_trials(self, trials: Sequence[Trial]) -> Project:
        """With new images that were removed."""
        known = {one.digest for one in self.trials}
        return self._with_trials([*(one for one in trials if one.digest not in known), *self.trials])

    def without_trials(self, digests: Iterable[str]) -> Project:
        """Without some of the new images."""
        gone = set(digests)
        return self._with_trials([one for one in self.trials if one.digest not in gone])

    def mark(self, digest: str, *, actual: int | None = None, excluded: tuple[int, ...] = ()) -> Project:
        """With what the user said of the class of a new image."""
        update = {"actual": actual, "excluded": excluded}
        return self._with_trials(
            [one.model_copy(update=update) if one.digest == digest else one for one in self.trials]
        )

    def file_trial(self, digest: str, number: int | None) -> Project:
        """With a new image in a class and in no other; with None in none. It stays among the new images."""
        trial = next((one for one in self.trials if one.digest == digest), None)
        if trial is None or not (number is None or number in self.numbers):
            return self
        without = self
        for one in self.classes:
            without = without.without_photos(one.number, [digest])
        return without if number is None else without.with_photos(number, [trial.photo]).mark(digest, actual=number)

    def _with_trials(self, trials: Sequence[Trial]) -> Project:
        return self.model_copy(update={"trials": tuple(trials)})

    def with_name(self, name: str) -> Project:
        """With another name; an empty one stands for its classes. Spaces around it are dropped."""
        return self.model_copy(update={"name": " ".join(name.split())})

    def with_base(self, base: str | None) -> Project:
        """With another model to start from."""
        return self.model_copy(update={"base": base})

    def with_renamed_base(self, old: str, new: str) -> Project:
        """With the new name of a model, if it starts from that one or was taught with it."""
        result = self.result
        if result is not None and result.base == old:
            result = result.model_copy(update={"base": new})
        return self.model_copy(update={"base": new if self.base == old else self.base, "result": result})

    def with_result(self, result: Result) -> Project:
        """With a taught model."""
        return self.model_copy(update={"result": result})

    def _with(self, number: int, **changes: object) -> Project:
        classes = [one.model_copy(update=changes) if one.number == number else one for one in self.classes]
        return self.model_copy(update={"classes": tuple(classes)})


def comparable_name(name: str) -> str:
    """The name in a form that is the same for names that people take for the same."""
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()


def _renamed_trial(trial: Trial, name: str) -> Trial:
    return trial.model_copy(update={"photo": trial.photo.model_copy(update={"name": name})})
