"""Problems and advice in words for people who use the app: they type no commands, and change no recipe."""

from __future__ import annotations

import re
from functools import cache

from pydantic import BaseModel

from thirtytwo.errors import MissingExtraError, OfflineError, ThirtytwoError
from thirtytwo.images.formats import HEIF_INSTALL
from thirtytwo.images.open import MAX_PIXELS_VARIABLE, TOO_LARGE, max_pixels
from thirtytwo.inference.session import USE_TRAINED

_ADVICE = re.compile(rf"{re.escape(TOO_LARGE)}{MAX_PIXELS_VARIABLE}=\d+")
_ADDED = "Save or send it smaller, with at most {}, and add it again."
_OWN = "Save it smaller, with at most {}, and try again."

_IN_IMAGES = (
    (re.escape(HEIF_INSTALL), "Save it as JPEG or PNG."),
    (r"; to read them: pip install pillow-heif", "; save them as JPEG to use them"),
    (r", or install a Pillow that reads \w+", ""),
)
_IN_ERRORS = (
    (
        r"; thirtytwo train leaves them out with --skip-unreadable\. All of them are listed by: .*",
        ". The page Train can leave them out, and the page Data lists all of them.",
    ),
    (r", or leave it out with --skip-unreadable\.", ". The page Train can leave it out."),
    (r"For more, train a network: thirtytwo train FOLDER", "For more, train a model on the page Train."),
    (re.escape(USE_TRAINED), "Choose a model.onnx made by thirtytwo, or the folder of a finished training."),
    (
        r"Add images, remove the class, or set data\.keep_together to 'copies'",
        "Add images, or remove the class",
    ),
    (r"Set --limit-train \(data\.limit_train\) to", "Set “Most training images” to"),
    (r" Otherwise use the path of a folder, or hf:owner/name\.", " Otherwise use the path of a folder."),
    (r"Choose one: (\?\S+)", r"Choose one by writing \1 after the name."),
    (r"(Unpack it) with: .*? – then", r"\1, then"),
    (r"(Download it first), for example with: .*? – then", r"\1, then"),
    (r"; (?:the model|a recipe) is an option \(--\w+\)", ""),
    (r"; for a private or gated (?:model|data set), run: hf auth login", "."),
    (r"then run the command again", "then try again"),
    (r"Use int8 instead", "Choose 8 bits instead"),
    (r" If you changed it on purpose, delete its metadata '[^']*'\.", ""),
    (r"Continue it with: .*", "Continue its training on the page Train, if it was started there."),
    (r"(?:Move it away and w|W)rite it again with: .*", "Train again to get it back."),
    (r"(?:Move it away and run|Create them with): .*", "Train again to get it back."),
    (r", or make the run again with another --run", ""),
    (r"Train it again: .*", "Train it again."),
    (r" \((?:searched .*? and the hub's cache|no data root is set)\), and the hub cannot be reached", ""),
)
"""Advice of messages for the command line, and what can be done in the app instead."""
_NOT_INSTALLED = "Whoever set up the app can install it."
_NO_TRAINING = "Whoever set up the app can add the libraries for training, which the page Train names."
_NO_DOWNLOADS = "The app downloads nothing: choose something that is on this computer, such as a folder of images."

_COMMANDS = (
    "app|compare|data|demo|ensemble|evaluate|explain|export|models|predict|push|recipes|report|serve|teach|train|tune"
)
_OUTSIDE = (
    r"(?<![\w-])--[a-z][\w-]*",
    rf"\bthirtytwo (?:{_COMMANDS})\b",
    r"\bTHIRTYTWO_[A-Z_]+",
    r"\b(?:pip install|hf auth|curl -|unzip -|tar -|7z x|aws s3|gcloud )",
    r"\bnumpy\.\w+",
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def plain(problem: str, *, added: bool = True) -> str:
    """A problem of an image without advice on the environment of the app, which its users cannot change.

    Args:
        problem: what is wrong, and what to do.
        added: whether the image was added to a page; else it is a file of a data set.
    """
    return _replaced(_ADVICE.sub(_filled(_ADDED if added else _OWN), problem), _IN_IMAGES)


def problem_of_added(problem: str) -> str:
    """A problem of an image that was added, and is not used: it can be added again or removed."""
    return re.sub(r"Copy it again,? or leave it out", "Add an intact copy, or remove it", problem)


def short(problem: str) -> str:
    """A problem in two or three words, for a thumbnail."""
    return "too large" if problem.endswith(_filled(_ADDED)) else "cannot be read"


def explained(error: ThirtytwoError) -> str:
    """What is wrong, and what can be done about it in the app."""
    return f"{_in_other_words(error.message)} {_advice_on(error)}".strip()


def in_app(text: str) -> str:
    """An error as one text, as in a log, with advice that can be followed in the app; its first sentence stays."""
    message, *advice = _SENTENCE.split(_in_other_words(text))
    return " ".join([message, *filter(is_for_app, advice)])


def advice_in_app(fix: str) -> str:
    """What to do, without the sentences that cannot be followed in the app; empty if none is left."""
    return " ".join(filter(is_for_app, _SENTENCE.split(_in_other_words(fix))))


def is_for_app(text: str) -> bool:
    """Whether a text names no option, command, setting of a recipe or variable of the environment."""
    return _technical().search(text) is None


def _advice_on(error: ThirtytwoError) -> str:
    if isinstance(error, MissingExtraError):
        return _NO_TRAINING if "[train]" in str(error.fix) else _NOT_INSTALLED
    return _NO_DOWNLOADS if isinstance(error, OfflineError) else advice_in_app(error.fix or "")


def _in_other_words(text: str) -> str:
    return _replaced(plain(text, added=False), _IN_ERRORS)


def _replaced(text: str, words: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in words:
        text = re.sub(pattern, replacement, text)
    return text


@cache
def _technical() -> re.Pattern[str]:
    from thirtytwo.config.recipe import Recipe  # only where there is a problem

    keys = "|".join(map(re.escape, sorted(_keys(Recipe), key=len, reverse=True)))
    return re.compile("|".join([*_OUTSIDE, rf"(?<![\w./-])(?:{keys})\b"]))


def _keys(table: type[BaseModel], prefix: str = "") -> list[str]:
    """The settings in the tables of a recipe, such as `data.resize`."""
    found = []
    for name, field in table.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _keys(inner, f"{prefix}{name}.")
        elif prefix:
            found.append(f"{prefix}{name}")
    return found


def _filled(advice: str) -> str:
    return advice.format(f"{max_pixels() / 1e6:,.0f} megapixels")
