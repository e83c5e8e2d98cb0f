"""Fonts of this machine that have the characters of class names."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from PIL import ImageFont

from thirtytwo.errors import MissingExtraError, require
from thirtytwo.text import listing

DEFAULT = "DejaVu Sans"
"""Matplotlib's own font, with Latin, Cyrillic, Greek, Arabic and other scripts."""
_PREFERRED = ("Noto Sans", "WenQuanYi", "Droid Sans Fallback", "Source Han Sans", "Nanum", "Hiragino", "Arial Unicode")
_PLACEHOLDERS = ("Last Resort", "LastResort", "Adobe Blank", "AdobeBlank")
"""Fonts with a box or nothing for every character, of which Matplotlib brings one."""
_PACKAGES = {
    "CJK": "fonts-noto-cjk",
    "HANGUL": "fonts-noto-cjk",
    "HIRAGANA": "fonts-noto-cjk",
    "KATAKANA": "fonts-noto-cjk",
}
_OTHER_PACKAGE = "fonts-noto-core"

logger = logging.getLogger(__name__)


Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont


def pillow_fonts(texts: Iterable[str], size: float) -> Callable[[str], Font]:
    """The function that returns Pillow's font for one of `texts`: the one with most of its characters.

    Characters that no font has are named in a warning, as by `font_families`. Without Matplotlib, which brings one and
    lists those of the machine, there is only Pillow's own font, which has the letters of English.
    """
    own = ImageFont.load_default(size)
    others = {text for text in texts if _foreign(text)}
    if not others:
        return lambda text: own
    try:
        families = font_families(others)
        paths = [_path_of(DEFAULT), *(path for name, path in _installed() if name in families)]
    except MissingExtraError as error:
        found = sorted(set[str]().union(*map(_foreign, others)))
        reason = "only Matplotlib knows the fonts of this machine"
        logger.warning("boxes stand for %s in images: %s. %s", listing(found, 5, quoted=False), reason, error.fix)
        return lambda text: own

    def font(text: str) -> Font:
        if not _foreign(text):
            return own
        wanted = _special(text)
        best = max(paths, key=lambda path: len(wanted & _characters(path)))
        return ImageFont.truetype(best, size) if os.path.isfile(best) else own  # noqa: PTH113

    return font


def _foreign(text: str) -> set[str]:
    """Letters that Pillow's own font does not have, which is all but those of English; symbols do not count."""
    return {char for char in _special(text) if unicodedata.category(char)[0] in "LM"}


def _special(text: str) -> set[str]:
    """Characters that not every font has."""
    return {char for char in text if not char.isspace() and ord(char) > 127}


def font_families(texts: Iterable[str]) -> list[str]:
    """Families of fonts, in the order in which Matplotlib tries them, that together have the characters of `texts`.

    Characters that no font of this machine has are named in a warning, with a package that brings one.
    """
    missing = set[str]().union(*map(_special, texts))
    families = [DEFAULT]
    missing -= _characters(_path_of(DEFAULT))
    if missing:
        for name, path in _installed():
            if found := missing & _characters(path):
                families.append(name)
                missing -= found
            if not missing:
                break
    if missing:
        packages = sorted({_package(char) for char in missing})
        logger.warning(
            "no font of this machine has %s: boxes stand for them in figures; install one, on Debian and Ubuntu with: "
            "apt-get install %s, then run the command again (for a run: thirtytwo report RUN)",
            listing(sorted(missing), 5, quoted=False),
            " ".join(packages),
        )
    return families


def font_file(family: str) -> Path:
    """The font file of a family from `font_families`."""
    return Path(dict(_installed()).get(family) or _path_of(DEFAULT))


def _package(char: str) -> str:
    return _PACKAGES.get(unicodedata.name(char, "").split(" ")[0], _OTHER_PACKAGE)


def _path_of(family: str) -> str:
    manager: Any = require("matplotlib.font_manager", "train")
    return str(manager.findfont(family))


def _installed() -> list[tuple[str, str]]:
    """Regular fonts of this machine as (family, path), preferred ones first."""
    manager: Any = require("matplotlib.font_manager", "train")
    regular = {
        font.name: font.fname
        for font in manager.fontManager.ttflist
        if font.style == "normal" and font.name != DEFAULT and not font.name.startswith(_PLACEHOLDERS)
    }
    return sorted(regular.items(), key=lambda font: (not font[0].startswith(_PREFERRED), font[0]))


@cache
def _characters(path: str) -> frozenset[str]:
    """The characters that a font file has; none where it cannot be read."""
    font: Any = require("matplotlib.ft2font", "train")
    try:
        return frozenset(map(chr, font.FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
