"""New images of a project: marks, the score, classes they are added to, and moved images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("streamlit")

from thirtytwo.app.project import Photo, PhotoClass, Project, Trial
from thirtytwo.app.project_store import ProjectStore
from thirtytwo.app.taught_result import Result, TaughtClass
from thirtytwo.app.trials import class_of, is_right, needs_mark, score, suggested, unlabeled, was_taught

PHOTOS = [Photo(name=f"{name}.png", digest=name, suffix=".png") for name in "abcdef"]


def tried() -> Project:
    """Classes cat (1) and dog (2) without images, and six new images, the newest first."""
    classes = tuple(PhotoClass(number=place, name=name) for place, name in enumerate(("cat", "dog"), start=1))
    return Project(classes=classes).with_trials(PHOTOS)


def result(*taught: str) -> Result:
    classes = (TaughtClass(number=1, name="cat", digests=taught), TaughtClass(number=2, name="dog", digests=()))
    return Result(base="imagenet", classes=classes, expectation="", accuracy=None, folds=0, count=0, notes=())


def trial(project: Project, digest: str) -> Trial:
    return next(one for one in project.trials if one.digest == digest)


def test_images_are_tried_once_and_removed_ones_come_back() -> None:
    project = tried().with_trials([PHOTOS[0], Photo(name="a.png", digest="g", suffix=".png")])
    assert [one.name for one in project.trials] == ["a-2.png", *(one.name for one in PHOTOS)]
    marked = project.mark("b", actual=1)
    gone = [trial(marked, "b")]
    assert len(marked.without_trials(["b"]).trials) == 6
    assert trial(marked.without_trials(["b"]).restore_trials(gone), "b").actual == 1
    assert marked.restore_trials(gone) == marked


@pytest.mark.parametrize(
    ("mark", "predicted", "expected"),
    [
        ({}, 1, None),
        ({"actual": 1}, 1, True),
        ({"actual": 1}, 2, False),  # another model's answer
        ({"excluded": (1,)}, 1, False),
        ({"excluded": (1,)}, 2, None),
        ({"actual": 1}, None, False),
        ({}, None, None),
    ],
)
def test_what_was_said_of_an_image_decides_on_every_answer(
    mark: dict[str, object], predicted: int | None, expected: bool | None
) -> None:
    project = tried().mark("a", **mark)  # type: ignore[arg-type]
    assert is_right(project, trial(project, "a"), predicted) is expected


def test_an_image_is_added_to_one_class_and_stays() -> None:
    project = tried().file_trial("a", 1).file_trial("a", 2)
    assert [[photo.digest for photo in one.photos] for one in project.classes] == [[], ["a"]]
    assert class_of(project, trial(project, "a")) == 2
    assert is_right(project, trial(project, "a"), 2)
    assert len(project.trials) == 6
    assert class_of(project.file_trial("a", None), trial(project, "a")) is None
    assert project.file_trial("none", 1) == project


def test_the_score_counts_marked_images_that_the_model_was_not_taught() -> None:
    project = tried().mark("a", actual=1).mark("b", actual=1).mark("c", excluded=(2,)).file_trial("d", 1)
    predicted = dict.fromkeys("abcde", 1) | {"c": 2}
    found = score(project, result("d"), predicted)
    assert found is not None
    assert (found["right"], found["count"]) == (2, 3)
    assert found["value"] == pytest.approx(2 / 3)
    assert found["ci95"][0] < 2 / 3 < found["ci95"][1]
    found = score(project, result(), predicted)
    assert found is not None
    assert (found["right"], found["count"]) == (3, 4)
    assert was_taught(result("d"), trial(project, "d"))
    assert score(tried(), result(), predicted) is None


def test_an_answer_that_was_wrong_and_has_changed_is_to_be_marked_again_and_not_left_out() -> None:
    project = tried().mark("a", actual=1).mark("b", excluded=(1,)).mark("c", excluded=(1,))
    before, after = dict.fromkeys("abc", 1), {"a": 1, "b": 2, "c": 2}
    found = score(project, result(), before)
    assert found is not None
    assert (found["right"], found["count"], found["again"]) == (1, 3, 0)
    found = score(project, result(), after)
    assert found is not None
    assert (found["right"], found["count"], found["again"]) == (1, 1, 2)
    assert [needs_mark(project, trial(project, name), after[name]) for name in "abc"] == [False, True, True]
    known = project.mark("b", actual=1, excluded=(1,)).mark("c", excluded=(1, 2))
    found = score(known, result(), after)
    assert found is not None
    assert (found["right"], found["count"], found["again"]) == (1, 3, 0)
    only = score(tried().mark("b", excluded=(1,)), result(), after)
    assert only is not None
    assert (only["count"], only["again"], only["value"]) == (0, 1, None)
    found = score(project, result("b", "c"), after)
    assert found is not None
    assert found["again"] == 0, "the model was taught with these"


def test_few_of_many_unlabeled_images_are_suggested() -> None:
    project = tried().mark("a", actual=1).mark("b", excluded=(1,))
    left = unlabeled(project, project.trials)
    assert [one.digest for one in left] == ["c", "d", "e", "f"]
    features, probabilities = np.eye(4), np.array([[0.9, 0.1], [0.5, 0.5], [0.8, 0.2], [0.6, 0.4]])
    assert suggested(left, features, probabilities) == ["d", "f", "e"]
    assert suggested(left[:3], features[:3], probabilities[:3]) == []


def test_images_move_between_classes() -> None:
    project = tried().with_photos(1, PHOTOS[:2]).move_photo("a", 1, 2)
    assert [[photo.digest for photo in one.photos] for one in project.classes] == [["b"], ["a"]]
    assert project.move_photo("a", 2, 1).move_photo("a", 1, 2) == project.move_photo("a", 1, 2)
    for unknown in (("x", 1, 2), ("b", 1, 9), ("b", 2, 1)):
        assert project.move_photo(*unknown) == project


def test_classes_are_found_by_their_name_in_whatever_letters() -> None:
    project = tried().with_named_class("Cat ")
    assert project == tried()
    assert [one.name for one in project.with_named_class("cow").classes] == ["cat", "dog", "cow"]
    unused = Project().with_named_class("cow")
    assert [one.name for one in unused.classes] == ["cow", ""]
    assert unused.number_of(" COW") == 1
    assert unused.number_of("") is None


def test_new_images_are_kept_on_disk_with_what_was_said(
    tmp_path: Path, paint: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ProjectStore.open(tmp_path)
    identity = store.create().identity
    store.add_files(identity, [("a.png", paint("red")), ("b.jpg", b"\xff\xd8 no")], Project.with_trials)
    digest = store.read(identity).trials[0].digest
    store.change(identity, lambda project: project.file_trial(digest, 1))
    found = ProjectStore.open(tmp_path).read(identity)
    assert [bool(one.photo.problem) for one in found.trials] == [False, True]
    assert class_of(found, found.trials[0]) == 1
    assert [one.digest for one in unlabeled(found, found.trials)] == []
    store.change(identity, lambda project: project.file_trial(digest, None))
    monkeypatch.setattr("thirtytwo.app.project_store._KEPT_SECONDS", -1.0)
    store.delete_unused(identity)
    assert store.image(identity, found.trials[0].photo).path.read_bytes() == paint("red")
