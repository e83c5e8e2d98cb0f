"""New images on the page Add classes: answers of the taught model, marks, the score, and adding them to classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import streamlit as st

from thirtytwo.app import look_twice, session
from thirtytwo.app.components import card
from thirtytwo.app.display import Result as Answer
from thirtytwo.app.display import classify, render
from thirtytwo.app.images import thumbnails, undo_button, upload_field
from thirtytwo.app.library import Entry, load_classifier, projects, warm_up
from thirtytwo.app.photos import InputImage
from thirtytwo.app.project import Project, Trial, comparable_name
from thirtytwo.app.project_checks import photo_counts, repeated_sentence
from thirtytwo.app.taught_result import Result
from thirtytwo.app.trials import (
    LEAST_TO_SUGGEST,
    class_of,
    is_right,
    needs_mark,
    score,
    suggested,
    unlabeled,
    was_taught,
)
from thirtytwo.fewshot.labeling import Floats
from thirtytwo.images.decode import load_image
from thirtytwo.inference.classifier import Prediction, UnreadableImage
from thirtytwo.text import as_markdown, counted, interval, listing, percent, readable_names

PER_PAGE = 8
TRIALS = "try-new"
"""Key of the heading, which a button above leads to."""
RIGHT, WRONG = "Right", "Wrong"
_NOT_KNOWN = 0
"""Stands for no class of the project, whose numbers start at 1, among the classes that an image may have."""
_OTHER = frozenset({"other", "others", "unknown", "none"})
_FIRST = "label-first"
_FEW_MARKS = 10
"""Number of marked answers below which their share says too little to be stated."""
_MAX_TOP = 5
_MAX_PILLS = 8
"""Number of classes up to which each has a button to add an image to it."""
_MAX_UNLABELED = 60
"""Number of unlabeled images that are considered for what to label next."""
_MAX_CARDS = 64
"""Number of cards that are kept for all sessions; one takes about 60 kB."""


def show_trials(project: Project, result: Result, entry: Entry) -> None:
    """Show the input of new images, the model's answers to them, and what the user said of these."""
    with st.container(key=TRIALS):
        st.subheader("Classify new images", anchor=False)
    st.caption(
        as_markdown(f"Images below are classified with {entry.name}.")
        + " Mark answers right or wrong to see the score on new images; add images to a class to teach them. For live "
        "answers, choose Camera above."
    )
    if not any(comparable_name(one.name) in _OTHER for one in project.classes):
        st.caption(
            "Images of other things are often given one of these classes, above all where they look similar. If the "
            "model will meet such images, add a class “other” with 20 or more of them, and train again."
        )
    target = session.target()
    add = partial(session.add_trials, target)
    if upload_field("New images", "try-files", add, project=target, newest_first=True, rerun=False):
        project = session.current()
    if repeated := session.repeated(session.TRIALS):
        st.info(as_markdown(repeated_sentence(repeated)), icon=":material/content_copy:")
    warm_up(entry)
    images = {one.digest: projects().image(project.identity, one.photo) for one in project.trials}
    _show_thumbnails(project, images, entry)
    if not project.trials:
        return
    look_twice.show_option()
    found = classify(entry, list(images.values()), twice=look_twice.wanted())
    look_twice.explain([entry], found)
    answers = dict(zip(images, found, strict=True))
    numbers = {one.name: one.number for one in result.classes if one.number in {two.number for two in project.classes}}
    predicted = {
        digest: numbers.get(one.top) for digest, one in answers.items() if not isinstance(one, UnreadableImage)
    }
    _show_score(project, result, predicted)
    place, to_label = st.container(), None
    if st.session_state.get(_FIRST):
        to_label = _suggest(project, entry, images)
    again = [one.digest for one in project.trials if _is_to_mark_again(project, result, one, predicted)]
    ordered = _ordered(project, [*again, *(one for one in to_label or [] if one not in again)])
    pages = -(-len(ordered) // PER_PAGE)
    first = 0
    if pages > 1:
        first = (st.pagination(pages, key=f"try-page-{len(ordered)}") - 1) * PER_PAGE
    for trial in ordered[first : first + PER_PAGE]:
        with st.container(border=True, key=f"trial-{trial.digest}"):
            _show_answer(entry, images[trial.digest], answers[trial.digest])
            if trial.digest in predicted:
                _show_marks(project, result, trial, predicted[trial.digest])
    with place:  # the answers do not wait for it
        _show_suggestions(project, _suggest(project, entry, images) if to_label is None else to_label)


def _is_to_mark_again(project: Project, result: Result, trial: Trial, predicted: Mapping[str, int | None]) -> bool:
    if trial.digest not in predicted or was_taught(result, trial):
        return False
    return needs_mark(project, trial, predicted[trial.digest])


def _show_thumbnails(project: Project, images: Mapping[str, InputImage], entry: Entry) -> None:
    trials = {one.digest: one for one in project.trials}

    def remove(digest: str) -> None:
        if digest in trials:
            session.remove_trials([trials[digest]])

    thumbnails([*images.values()], "trials", remove, entry, undo="undo-trials")
    undoable = session.undoable(trials=True)
    if trials or undoable:
        with st.container(horizontal=True, vertical_alignment="center"):
            if trials:
                st.caption(", ".join(photo_counts(one.photo for one in project.trials)), width="content")
                st.button(
                    "Remove all images",
                    key="clear-trials",
                    type="tertiary",
                    on_click=session.remove_trials,
                    args=(project.trials,),
                )
            if undoable:
                undo_button(undoable, "undo-trials", partial(session.undo, trials=True))


def _show_score(project: Project, result: Result, predicted: Mapping[str, int | None]) -> None:
    found = score(project, result, predicted)
    if found is None:
        return
    text = f"{found['right']} of {counted(found['count'], 'marked answer')} right"
    again = f"; {found['again']} to mark again" if found["again"] else ""
    if found["count"] < _FEW_MARKS:
        st.markdown(f"**{text}{again}**. From {_FEW_MARKS} on, the page states the accuracy with its interval.")
    elif again:
        st.markdown(f"**{text}{again}**. The accuracy is stated once these are marked.")
    else:
        ends = interval(found["ci95"])
        st.markdown(f"**{text}: {percent(found['value'])}**, 95\u00a0% interval {ends}.")
    if again:
        st.caption(
            "An earlier answer to these images was wrong, and the model now gives another one. They come first below: "
            "mark them again, or choose their class, which then counts for every later model."
        )
    if any(was_taught(result, one) for one in project.trials):
        st.caption("Images that this model was taught with do not count.")


def _ordered(project: Project, first: Sequence[str]) -> list[Trial]:
    """The new images, those with the content hashes `first` before the others."""
    trials = {one.digest: one for one in project.trials}
    return [*(trials[one] for one in first), *(one for one in project.trials if one.digest not in first)]


def _show_suggestions(project: Project, found: Sequence[str]) -> None:
    """Show which images to label next, and why."""
    if not found:
        return
    names = {one.digest: one.name for one in project.trials}
    st.markdown(
        as_markdown(f"Label next: {listing([names[one] for one in found], quoted=False)}.")
        + " The model is least sure of these, and they differ from each other, so they teach it most."
    )
    st.toggle("Show these first", key=_FIRST, persist_state="session")


def _suggest(project: Project, entry: Entry, images: Mapping[str, InputImage]) -> list[str]:
    """Content hashes of the images to label next; none of a few."""
    trials = unlabeled(project, project.trials)[:_MAX_UNLABELED]
    if len(trials) < LEAST_TO_SUGGEST:
        return []
    if "features" not in {output.name for output in load_classifier(entry).session.get_outputs()}:
        return []
    rows = [_features(entry.stamp, one.digest, entry, images[one.digest]) for one in trials]
    return suggested(trials, np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))


@st.cache_data(show_spinner="Choosing images to label next …", max_entries=1000)
def _features(stamp: tuple[str, int, int], digest: str, _entry: Entry, _image: InputImage) -> tuple[Floats, Floats]:
    """Features `(D,)` and probabilities `(C,)` of an image."""
    classifier = load_classifier(_entry)
    pixels = load_image(_image.path, classifier.info.input_size, classifier.info.resize, _image.name).pixels
    found = classifier.run(pixels[None], ("features", "probabilities"))
    return found["features"][0], found["probabilities"][0]


def _show_answer(entry: Entry, image: InputImage, answer: Answer) -> None:
    if isinstance(answer, UnreadableImage):
        st.warning(as_markdown(answer.error), icon=":material/broken_image:")
        return
    st.html(_card(entry.stamp, image.digest, image.name, look_twice.views_of(answer), entry, image, answer))


@st.cache_data(show_spinner=False, max_entries=_MAX_CARDS)
def _card(
    stamp: tuple[str, int, int],
    digest: str,
    name: str,
    views: int,
    _entry: Entry,
    _image: InputImage,
    _answer: Prediction,
) -> str:
    """The card of an answer as HTML, which marking an image does not make anew."""
    return card(name, _answer, render(_entry, _image, heat=False), _MAX_TOP, heat=False)


def _show_marks(project: Project, result: Result, trial: Trial, predicted: int | None) -> None:
    """Show whether the answer is right, to be marked by the user, and the classes to add the image to."""
    member = class_of(project, trial)
    right = is_right(project, trial, predicted)
    key = f"mark-{trial.digest}"
    shown = None if right is None else RIGHT if right else WRONG
    if st.session_state.get(key) != shown:
        st.session_state[key] = shown

    def mark() -> None:
        said = st.session_state[key]
        if said == RIGHT and predicted is not None:
            session.mark(trial.digest, actual=predicted)
        elif said == WRONG and predicted is not None:
            session.mark(trial.digest, excluded=_with(trial.excluded, predicted))
        else:
            session.mark(trial.digest)

    again = predicted is not None and needs_mark(project, trial, predicted) and not was_taught(result, trial)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control(
            "Answer",
            [RIGHT, WRONG],
            key=key,
            on_change=mark,
            disabled=member is not None or predicted is None,
            help="Its class is known, because it was added to one." if member is not None else None,
        )
        if member is None and predicted is not None and (right is False or again):
            _show_true_class(project, trial, predicted)
        _show_class_choice(project, trial, member)
        if again:
            st.badge(
                "mark again",
                icon=":material/help:",
                color="orange",
                help="An earlier answer was wrong, and the model now gives another one.",
            )
        if was_taught(result, trial):
            st.badge("taught", icon=":material/school:", color="gray", help="This model was taught with this image.")


def _show_true_class(project: Project, trial: Trial, predicted: int) -> None:
    """Ask for the class of an image whose answer is wrong, so that the answers of later models can be scored, too."""
    names = _class_names(project) | {_NOT_KNOWN: "None of these, or not known"}
    names.pop(predicted, None)
    key = f"true-{trial.digest}"
    known = trial.actual if trial.actual in names else None
    if st.session_state.get(key) != known and not (known is None and st.session_state.get(key) == _NOT_KNOWN):
        st.session_state[key] = known

    def choose() -> None:
        chosen = st.session_state[key]
        if chosen in (None, _NOT_KNOWN):
            session.mark(trial.digest, excluded=_with(trial.excluded, predicted))
        else:
            session.mark(trial.digest, actual=chosen, excluded=trial.excluded)

    st.selectbox(
        "What is it?",
        list(names),
        index=None,
        format_func=names.__getitem__,
        key=key,
        on_change=choose,
        placeholder="Choose its class",
        width=240,
        help="With its class, the answers of later models to this image are right or wrong without another mark.",
    )


def _with(excluded: tuple[int, ...], number: int) -> tuple[int, ...]:
    return excluded if number in excluded else (*excluded, number)


def _class_names(project: Project) -> dict[int, str]:
    names = [one.name or f"class {place}" for place, one in enumerate(project.classes, start=1)]
    return {one.number: name for one, name in zip(project.classes, readable_names(names), strict=True)}


def _show_class_choice(project: Project, trial: Trial, member: int | None) -> None:
    """Show the classes that an image can be added to with one click; the one that it is in is selected."""
    names = _class_names(project)
    key = f"file-{trial.digest}"
    if st.session_state.get(key) != member:
        st.session_state[key] = member

    def file() -> None:
        session.file_trial(trial.digest, st.session_state[key])

    label, options = "Add to class", list(names)
    if len(names) <= _MAX_PILLS:
        st.pills(label, options, format_func=lambda number: as_markdown(names[number]), key=key, on_change=file)
    else:
        st.selectbox(label, options, index=None, format_func=names.__getitem__, key=key, on_change=file)
