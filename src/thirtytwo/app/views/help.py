"""The page Help: what the app does, where data stays, what the answers mean, keys, and the app on a phone."""

from __future__ import annotations

import io

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.certainty import SURE
from thirtytwo.app.components import UNKNOWN, title
from thirtytwo.app.decisions import MAX_KEPT
from thirtytwo.app.look_twice import LABEL
from thirtytwo.app.settings import IMAGE_MB
from thirtytwo.app.views.fix_review import SHORTCUTS
from thirtytwo.errors import require
from thirtytwo.evaluation.calibration import LEAST_IMAGES
from thirtytwo.images.open import MAX_PIXELS, MAX_REDUCED
from thirtytwo.text import SPACE, interval, percent

PAGES = """
- **Classify** says what is in your images.
- **Compare** classifies the same images with two to four models.
- **Explore** shows what a model got right and wrong, and the images of a data set.
- **Data** finds problems of a data set, such as duplicates and wrong labels, keeps your decisions on them, and writes a
  fixed copy.
- **Train** trains a model on a folder of images, in the background.
- **Models** lists the models, how accurate they are, and adds others.
- **Add classes** makes a model for your own classes from a few images of each.
"""

PRIVACY = f"""
The app runs on the computer on which it was started, and needs no internet. It sends nothing to anyone: no images, no
results, and no statistics about its use.

- Images on Classify and Compare are deleted an hour after you close the page, or when the app stops; models that you
  upload are deleted when you close the page.
- A project of Add classes is kept on that computer until you delete it: names, images, result and model, and new
  images with your marks. An image that you remove from it is deleted when the project is opened a day later or more.
- Kept as well: decisions on Data, of the last {MAX_KEPT} data sets, trainings until you close or forget them, runs, the
  names that you give to models, and which model is in use.
- An image can have up to {IMAGE_MB} MB and {MAX_PIXELS // 10**6} million pixels, most JPEG photos up to
  {MAX_REDUCED * MAX_PIXELS // 10**6} million. Large photos are read in small portions.
"""

ANSWERS = f"""
**Classes.** A model knows a list of classes and always answers with these. Classify says which ones.

**Percentages.** Of all images for which a model says 90{SPACE}%, about nine in ten are answered right. The
percentages of all classes add up to 100{SPACE}%. The built-in model imagenet and models that were trained with fewer
than {LEAST_IMAGES} validation images are exceptions: their percentages were not compared with how often they are right.
The pages say so below the name of such a model.

**Not sure.** No class has {percent(SURE, 0)} or more. Take another photo, closer and with more light, or look at the
next answers.

**Unknown.** {UNKNOWN} The image is unlike those that the model learned from, so its answer means little. Not
everything unknown is noticed: things that resemble one of the classes are mostly given that class. For a model of Add
classes, a class “other” with images of such things helps. Now and then a normal image is marked too; the report of a
model says how often.

**{LABEL}.** An image whose answer has a low percentage, for most models below 90{SPACE}%, is looked at again,
mirrored, and the answers are averaged. That is often a little more accurate, and takes longer for these images. Each
answer says how many views it averages. Whether an image is unknown, and the live answers of the camera, come from one
look.

**Heatmap.** Warm colors show the part of the image that speaks most for the answer. If that is the background, the
model learned the wrong thing: give it images with other backgrounds.

**95{SPACE}% interval.** An accuracy is measured on a limited number of images, so it is not exact. An accuracy of
88{SPACE}% with the interval {interval((0.8, 0.94), digits=0)} means: on very many images, it would most likely lie
between these two. More images make the interval narrower.

**Accuracy to expect.** Add classes divides your images into parts. Each part is classified by a model that was trained
on the other parts, so that no image was seen before. Several images of the same scene make this estimate too high.
"""


def show() -> None:
    """Show the page."""
    title("Help", "What the app does, what stays on this computer, and what its answers mean.")
    _section("What the pages do", PAGES)
    _section("What stays on this computer", PRIVACY)
    _section("What the answers mean", ANSWERS)
    _section("Keys", _keys())
    st.header("On a phone", anchor=False)
    _show_phone()


def _section(heading: str, text: str) -> None:
    st.header(heading, anchor=False)
    st.markdown(text)


def _keys() -> str:
    """The keys of the app as a Markdown table."""
    named = {"Left": "←", "Right": "→"}
    of_data = {key: named.get(pressed, pressed) for key, pressed in SHORTCUTS.items()}
    rows = [
        ("Tab, Shift + Tab", "go to the next or the previous field, button or link"),
        ("Enter, Space", "press the button or open the list that has the focus"),
        ("Ctrl + V (⌘ + V)", "on Classify and Compare: add the image that you copied"),
        ("arrow keys", "move in a list, a table or a matrix"),
        (f"{of_data['accept']}, {of_data['reject']}", "on Data: accept or reject the fix that is shown"),
        (f"{of_data['previous']}, {of_data['next']}", "on Data: show the previous or the next fix"),
        (of_data["undo"], "on Data: undo the last decision"),
        ("Esc", "close a list or a message"),
    ]
    return "\n".join(["| key | does |", "| --- | --- |", *(f"| {key} | {does} |" for key, does in rows)])


def _show_phone() -> None:
    """Show the address for phones in the same network with its QR code, or how to get one."""
    settings = library.settings
    url = settings.network_url
    if url is None:
        st.markdown(
            "The app can be opened to phones in the same network. This page then shows its address and a QR code. "
            "Anyone in that network can use the app, but sees no list of your projects, only one whose address is "
            "known, and can open no files by their path. To do so, stop the app, and start it in a terminal with:"
        )
        st.code("thirtytwo app --host 0.0.0.0", language="bash")
        return
    st.markdown(
        f"Scan this code with a phone in the same network, or open `{url}` there. Anyone in this network can do that."
    )
    st.image(qr_code(url), width=220, alt=f"QR code of {url}")


def qr_code(text: str) -> bytes:
    """A QR code, black on white, as the bytes of a PNG file.

    Raises:
        MissingExtraError: segno is not installed.
    """
    stream = io.BytesIO()
    require("segno", "app").make(text, error="m", micro=False).save(stream, kind="png", scale=8, border=4)
    return stream.getvalue()
