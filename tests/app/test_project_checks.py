"""What is missing in a project, names that clash, results out of date, and a class that comes back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

pytest.importorskip("streamlit")

from thirtytwo.app.project import Photo, PhotoClass, Project
from thirtytwo.app.project_checks import (
    changes_since,
    missing_input,
    photo_counts,
    repeated_names,
    repeated_sentence,
    shared_sentence,
)
from thirtytwo.app.taught_result import Result, TaughtClass
from thirtytwo.app.trials import is_right


def named(*names: str) -> Project:
    return Project(classes=tuple(PhotoClass(number=place, name=name) for place, name in enumerate(names, start=1)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cat", "dog"), []),
        (("cat", "Cat"), ["Cat"]),
        (("cat", "  CAT "), ["  CAT "]),
        (("my cat", "my  cat"), ["my  cat"]),
        (("Straße", "STRASSE"), ["STRASSE"]),
        (("café", "cafe\u0301"), ["cafe\u0301"]),
        (("", ""), []),
    ],
)
def test_names_that_people_take_for_the_same(names: tuple[str, str], expected: list[str]) -> None:
    assert repeated_names(named(*names)) == expected
    assert bool([step for step in missing_input(named(*names)) if "name '" in step or "than" in step]) == bool(expected)


def test_the_class_that_has_a_name_already_is_named() -> None:
    (step,) = [step for step in missing_input(named("Pappe", "glass", "pappe")) if "than" in step]
    assert "'pappe'" in step
    assert "'Pappe'" in step


def taught(project: Project, base: str = "imagenet") -> Project:
    classes = tuple(
        TaughtClass(number=one.number, name=one.name, digests=tuple(photo.digest for photo in one.readable))
        for one in project.classes
    )
    result = Result(base=base, classes=classes, expectation="", accuracy=None, folds=0, count=0, notes=())
    return project.with_result(result)


PHOTO, OTHER = Photo(name="a.png", digest="a", suffix=".png"), Photo(name="b.png", digest="b", suffix=".png")
BROKEN = Photo(name="c.png", digest="c", suffix=".png", problem="It is empty.")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda project: project, []),
        (lambda project: project.with_photos(1, [BROKEN]), []),
        (lambda project: project.rename(1, "puma").rename(1, "cat"), []),
        (lambda project: project.rename(1, "puma"), ["'cat' is now named 'puma'"]),
        (lambda project: project.rename(1, ""), ["'cat' has no name now"]),
        (lambda project: project.with_photos(2, [OTHER]), ["1 image of 'dog' was added"]),
        (lambda project: project.without_photos(1, ["a"]), ["1 image of 'cat' was removed"]),
        (lambda project: project.without_class(2), ["'dog' was removed"]),
        (lambda project: project.with_class(), ["a class is new"]),
    ],
)
def test_what_makes_a_result_out_of_date(change: Callable[[Project], Project], expected: list[str]) -> None:
    project = taught(named("cat", "dog").with_photos(1, [PHOTO]))
    assert changes_since(change(project), "imagenet") == expected


def test_another_model_to_start_from_makes_a_result_out_of_date() -> None:
    assert changes_since(taught(named("cat", "dog")), "cifar100") == [
        "it would start from 'cifar100' instead of 'imagenet'"
    ]
    assert changes_since(named("cat", "dog"), "cifar100") == []


def test_an_image_that_two_classes_have_is_named_before_training() -> None:
    other_name = PHOTO.model_copy(update={"name": "copy.png"})
    project = named("cat", "dog").with_photos(1, [PHOTO]).with_photos(2, [OTHER])
    assert not project.shared
    assert missing_input(project) == []
    project = project.with_photos(2, [other_name])
    (found,) = project.shared
    assert found == [(1, PHOTO), (2, other_name)]
    for word in ("a.png", "copy.png", "cat", "dog"):
        assert word in shared_sentence(project, found)
    assert any("a.png" in step for step in missing_input(project))


def test_images_that_are_there_already_are_named() -> None:
    assert "a.png" in repeated_sentence([("a.png", "a.png")])
    assert all(name in repeated_sentence([("b.png", "a.png")]) for name in ("a.png", "b.png"))
    assert "12 images" in repeated_sentence([(f"{place}.png", "") for place in range(12)])


@pytest.mark.parametrize(
    ("photos", "expected"),
    [
        ((), ["0 images"]),
        ((PHOTO,), ["1 image"]),
        ((PHOTO, BROKEN, OTHER), ["2 images", "1 file that cannot be read"]),
        ((BROKEN, BROKEN), ["2 files that cannot be read"]),
    ],
)
def test_files_that_cannot_be_read_are_not_counted_as_images(photos: tuple[Photo, ...], expected: list[str]) -> None:
    assert photo_counts(photos) == expected


def test_a_removed_class_comes_back_in_its_place() -> None:
    project = named("a", "b", "c")
    restore = partial(Project.restore_class, position=1, found=project.classes[1])
    assert restore(project.without_class(2)) == project
    assert restore(project) == project, "another session restored it"


def test_a_new_class_is_not_taken_for_one_that_was_removed() -> None:
    before = taught(named("cat", "dog", "cow").with_trials([PHOTO]).mark("a", actual=3))
    found = before.classes[2]
    after = before.without_class(3).with_class()
    assert is_right(after, after.trials[0], after.classes[-1].number) is False
    assert changes_since(after, "imagenet") == ["'cow' was removed", "a class is new"]
    restored = after.restore_class(2, found)
    assert [one.name for one in restored.classes] == ["cat", "dog", "cow", ""]
    assert is_right(restored, restored.trials[0], found.number)
    assert Project.model_validate_json(before.without_class(3).model_dump_json()).with_class() == after
