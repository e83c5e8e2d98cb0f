"""The option “Look twice when in doubt” of all pages that classify: further views where confidence is low.

It is `tta="auto"` of `Classifier.predict`, with the number of views of each answer. The address of the page names it,
so that reloading shows the same answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import streamlit as st

from thirtytwo.app.library import Entry, load_classifier
from thirtytwo.inference.classifier import Classifier, Prediction, UnreadableImage
from thirtytwo.inference.model_file import TtaInfo
from thirtytwo.inference.views import further_views
from thirtytwo.text import SPACE, counted, percent

LABEL = "Look twice when in doubt"
QUERY, TWICE = "look", "twice"
"""Parameter of the page's address, and its value where the option is on."""
KEY = "look-twice"
_WANTED = "look twice"
_HELP = (
    f"An image whose answer has a low percentage, for most models below 90{SPACE}%, is also looked at mirrored, and "
    "the answers are averaged. That is often a little more accurate, and takes longer for these images."
)
_NEVER = "This model looks at every image once: a second look made more answers wrong on its validation images."
_NONE_EVER = "These models look at every image once: a second look made more answers wrong on their validation images."
_ENOUGH = "One look was enough for every image."
_SIDE = 16
"""Side of the image whose views are counted; larger than twice any shift."""


@dataclass(frozen=True, slots=True)
class ViewedPrediction(Prediction):
    """A prediction with the number of `views` of the image that it averages."""

    views: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The entry of `thirtytwo predict --format json`, and `views`."""
        return Prediction.as_dict(self) | {"views": self.views}


def keep() -> None:
    """Keep the option in the page's address; a new session takes it from there. Called at the start of a run."""
    if _WANTED not in st.session_state:
        st.session_state[_WANTED] = st.query_params.get(QUERY) == TWICE
    if not wanted():
        st.query_params.pop(QUERY, None)
    elif st.query_params.get(QUERY) != TWICE:
        st.query_params[QUERY] = TWICE


def wanted() -> bool:
    """Whether images in doubt are looked at again; by default they are not, as in `thirtytwo predict`."""
    return bool(st.session_state.get(_WANTED, False))


def show_option() -> None:
    """Show the switch; its change is in effect from the start of the next run."""
    st.session_state[KEY] = wanted()  # always, because the switches of other pages share this key

    def change() -> None:
        st.session_state[_WANTED] = st.session_state[KEY]

    st.toggle(LABEL, key=KEY, on_change=change, help=_HELP)


def explain(entries: Sequence[Entry], results: Iterable[Prediction | UnreadableImage]) -> None:
    """Show which images were looked at again, if the option is on.

    Args:
        entries: the models in use.
        results: the answers of all of them.
    """
    if wanted():
        st.caption(explanation([load_classifier(one).tta for one in entries], list(results)))


def explanation(settings: Sequence[TtaInfo], results: Sequence[Prediction | UnreadableImage]) -> str:
    """Which images were looked at again, as sentences."""
    sure = {percent(one.threshold, 0) for one in settings if one.threshold}
    if not sure:
        return _NEVER if len(settings) == 1 else _NONE_EVER
    answers = [one for one in results if isinstance(one, Prediction)]
    again = sum(views_of(one) > 1 for one in answers)
    if not again:
        return _ENOUGH if len(answers) > 1 else "One look was enough."
    limit = f"less than {sure.pop()} sure" if len(sure) == 1 else "below its limit"
    if len(answers) == 1:
        return f"Looked again, because the model was {limit}."
    if len(settings) == 1:
        return f"Looked again at {again:,} of {counted(len(answers), 'image')}, where the model was {limit}."
    return f"Looked again for {again:,} of {counted(len(answers), 'answer')}, where a model was {limit}."


def in_doubt(classifier: Classifier, result: Prediction | UnreadableImage) -> bool:
    """Whether an image is looked at again, by the answer to one view of it."""
    return isinstance(result, Prediction) and result.confidence < classifier.tta.threshold


def most_views(classifier: Classifier) -> int:
    """Number of views of an image that is looked at again."""
    return 1 + len(further_views(np.zeros((1, _SIDE, _SIDE, 3), np.uint8), classifier.tta.shift))


def with_views(result: Prediction | UnreadableImage, views: int) -> Prediction | UnreadableImage:
    """The result with the number of views that it averages."""
    if isinstance(result, UnreadableImage):
        return result
    values = {one.name: getattr(result, one.name) for one in fields(Prediction)}
    return ViewedPrediction(**values, views=views)


def views_of(result: Prediction | UnreadableImage) -> int:
    """Number of views that an answer averages; 0 where the option was off, or the image cannot be read."""
    return result.views if isinstance(result, ViewedPrediction) else 0


def views_note(result: Prediction | UnreadableImage) -> str:
    """How often an image was looked at, as a phrase; empty where the option was off."""
    views = views_of(result)
    return "" if not views else "one look was enough" if views == 1 else f"looked again: average of {views} views"
