"""What to do about the findings on the page Data, in words for people who use the app: within it, or with their files.

The checks' own words are for the command line. Those of checks that are not ours are shown without the sentences that
name options and settings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from thirtytwo.app.problems import advice_in_app, plain
from thirtytwo.doctor.base import Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.text import SPACE, counted, interval

_DELETE = "Look at them, and delete those in which you cannot recognize the class. Then check the data again."
_ACCEPT = "Go through the suggested fixes below, and accept those that are right."
_WHOLE = "choose the recipe photos on the page Train: it squeezes the whole image into a square."

_WHAT_TO_DO = {
    "T101": f"{_ACCEPT} They remove the copies from the training images.",
    "T102": f"{_ACCEPT} Test images are not changed: move those into the folder of the right class yourself.",
    "T103": f"{_ACCEPT} One image of each group stays.",
    "T111": f"Look at them. {_ACCEPT}",
    "T112": "Look at them, and move each image into the folder of the right class, or delete it. Then check the data "
    "again.",
    "T113": "If they are copies, delete all but one of each group. A series of photographs of one thing can stay.",
    "T200": "Correct what is named, then check the data again.",
    "T202": "",
    "T203": "Nothing to do for training here. For other programs, rename the files, or save them again in one format.",
    "T204": "Compare them with the others. If their colors look different, open them in an image editor and save them "
    "as JPEG.",
    "T205": "Nothing to do for training here.",
    "T301": "Add images of these classes to the folder that lacks them, then check the data again.",
    "T302": "Add images of these classes, 20 or more of each. With fewer, their results are not reliable.",
    "T303": "Add images of the rare classes. On the page Train, Class weights lets them count more; afterwards, the "
    "page Explore shows how well each class is recognized.",
    "T304": "If they are the same class, put their images into one folder, then check the data again.",
    "T305": "Add test images: four times as many halve the interval. Until then, do not rely on small differences "
    "between models.",
    "T401": f"{_ACCEPT} They remove images that show nothing.",
    "T402": "Look at them, and brighten or delete those in which you cannot recognize the class. Then check the data "
    "again.",
    "T403": _DELETE,
    "T404": _DELETE,
    "T405": _DELETE,
    "T411": "",
    "T412": "",
    "T413": f"Cut out the part that shows the class, or {_WHOLE}",
    "T414": f"Look whether the ends matter. If they do, {_WHOLE}",
    "T501": "Go through the suggested fixes below, the most certain first: many of these labels are right but unusual.",
    "T502": "Look at them, and delete those that do not belong to the data. Then check the data again.",
    "T601": "Crop the frame off, or add images of the class with other backgrounds.",
    "T602": "Crop all images to one shape and size, or add images of the class from the other sources.",
    "T603": "Save all images in one format and quality, from the originals where you have them.",
    "T604": "Check whether these classes come from another source. If so, save all images in one quality.",
    "T611": "Mix the images of the folders train and test and divide them at random, or expect a lower accuracy on the "
    "test images.",
}
"""Advice by the code of a check; empty: there is nothing to do."""

_UNREADABLE = "To leave it out, accept its fix below, or choose that on the page Train."
_APART = (
    "The page Train divides this data in the same way. To change that, divide the images into the folders train and "
    "test yourself."
)
_TOGETHER = (
    "If they are copies, delete all but one of each group. Where training divides the data, as here, the images of a "
    "group stay together."
)

_WHY = {
    "T201": "Training stops at such a file, unless it is left out.",
    "T204": "They are converted to ordinary colors here. Other programs may show them differently, and their colors "
    "differ from those of the rest.",
    "T205": "Cameras save many photographs lying on their side, with a note on how to turn them. They are turned "
    "upright here; programs that ignore the note see them lying.",
    "T413": "A model sees square images, so these are cut off or distorted.",
    "T414": "These checks look at the central square of each image, and so does training with most recipes.",
    "T502": "An image that resembles no class may not belong to the data, as a placeholder or a screenshot.",
}
"""Why a finding matters, where the check says it in technical terms."""

_WHAT = (
    (r"^By a linear layer on features, whose predictions agree", "By a comparison with the other images, which agrees"),
    (r" \(AUROC [^()]*\)", ""),
    (r"rotated by their EXIF orientation", "turned by a note in their files"),
    (r"an aspect ratio above 2\b", "one side more than twice as long as the other"),
    (r"; checked at \d+×\d+\. The recipe sets the size for training\.", "."),
    (
        r"^No test split: (.*) were split off as test \(seed \d+\)",
        r"There is no folder test: \1 were set aside at random",
    ),
    (r" \(seed \d+\)", ""),
    (r"; --set data\.split_seed=\d+ draws others, and (folders train, val and test fix the split)", r"; \1"),
)
_TEST_IMAGES = re.compile(r"^The test set has (\d+) images: an accuracy of (\d+) % is measured to ±")
_TITLES = {"T202": "how the data was read"}
"""Titles that say less than those of the checks, where what these name was not found."""
_LEFT_OUT = re.compile(r"left out|skipped|ignored", re.IGNORECASE)


def why_it_matters(check: type[Check]) -> str:
    """Why the findings of a check matter."""
    return _WHY.get(check.code, check.why)


def title_of(check: type[Check], findings: Sequence[Finding]) -> str:
    """The title of a check's findings; it names files that are left out only if some are."""
    own = _TITLES.get(check.code)
    return check.title if own is None or any(_LEFT_OUT.search(one.what) for one in findings) else own


def in_technical_terms(finding: Finding) -> str:
    """What a check found in its own words; empty where the page says it in the same words."""
    own = plain(finding.what, added=False)
    return "" if own == what_was_found(finding) else own


def what_was_found(finding: Finding) -> str:
    """What a check found, without terms of statistics."""
    text = plain(finding.what, added=False)
    if found := _TEST_IMAGES.match(text):
        return _of_few(int(found[1]), int(found[2]))
    return in_plain_words(text)


def in_plain_words(text: str) -> str:
    """A sentence of a check, or on reading data, without terms of statistics and of the command line."""
    for pattern, replacement in _WHAT:
        text = re.sub(pattern, replacement, text)
    return text


def _of_few(images: int, right: int) -> str:
    """What the accuracy on a small test set is worth."""
    ends = interval(wilson(images * right / 100, images), digits=0)
    return (
        f"There are only {counted(images, 'test image')}. If a model is right for {right}{SPACE}% of them, it may be "
        f"right for {ends} of all such images."
    )


def what_to_do(finding: Finding, subject: Subject | None) -> str:
    """What people can do about a finding; empty where there is nothing to do.

    Args:
        finding: what was found.
        subject: the data set; None where it could not be loaded.
    """
    own = _special(finding, subject)
    if own is None:
        own = _WHAT_TO_DO.get(finding.code)
    return advice_in_app(finding.fix) if own is None else own


def _special(finding: Finding, subject: Subject | None) -> str | None:
    """Advice that depends on the finding or the data; None: it does not."""
    if finding.code == "T200":
        return advice_in_app(finding.fix) or None
    if finding.code == "T201":
        return f"{advice_in_app(finding.fix)} {_UNREADABLE}".strip()
    if subject is None:
        return None
    if finding.code == "T113" and subject.data.train.near is not None:
        return _TOGETHER
    return _APART if finding.code == "T611" and subject.data.test_is_cut and finding.severity == "note" else None
