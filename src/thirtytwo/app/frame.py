"""What surrounds every page: links to all pages, the way back to the top, and results spoken to screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.navigation.page import Page

from thirtytwo.app import library
from thirtytwo.app.settings import IMAGE_MB, MODEL_MB, ZIP_MB
from thirtytwo.text import as_html

STYLE, SCRIPT = (Path(__file__).with_name(f"frame.{kind}") for kind in ("css", "js"))
STOPPED_TITLE, GOES_ON = "The app has stopped", "This page then goes on by itself."
FAILED = (
    "Something in the app went wrong. Your projects, decisions and trainings are kept.",
    "Reload the page to go on. If it happens again, please report it: the terminal of the app shows the details.",
)
"""What stands in place of Streamlit's message about an error of the app itself."""

_FORMATS = f"Up to {IMAGE_MB} MB each: JPEG, PNG, WebP, HEIC and others"
"""Stands in fields for images instead of Streamlit's list of 20 suffixes, which does not fit."""

ANNOUNCE = """
export default function ({ data }) {
  let region = document.getElementById("tt-announced");
  if (!region) {
    region = document.createElement("div");
    Object.assign(region, { id: "tt-announced", className: "tt-unseen" });
    region.setAttribute("role", "status");
    region.setAttribute("aria-live", "polite");
    document.querySelector("[data-testid=stApp]").append(region);
  }
  let text = [...region.children].find((one) => one.dataset.of === data.key);
  if (!text) {
    text = document.createElement("p");
    text.dataset.of = data.key;
    region.append(text);
  }
  if (text.textContent !== data.text) text.textContent = data.text;
  return () => { if (text.textContent === data.text) text.remove(); };
}
"""
"""Script that puts a text where screen readers speak it; the place stays when the page is drawn anew."""


def show_frame(pages: Sequence[Page], page: Page) -> None:
    """Show links to all pages, which phones have instead of Streamlit's menu, and start the script of the frame."""
    st.html(STYLE)
    sizes = f'--tt-model: "Up to {MODEL_MB} MB"; --tt-zip: "Up to {ZIP_MB} MB";'
    st.html(f'<style>:root {{ --tt-formats: "{_FORMATS}"; {sizes} }}</style>')
    with st.container(horizontal=True, gap="small", key="pages"):
        for one in pages:
            st.page_link(one)
    data = {"page": page.url_path, "stopped": {"title": STOPPED_TITLE, "lines": stopped_lines()}, "failed": FAILED}
    _frame_component()(key="frame", data=data, height=1)


def announce(text: str, key: str = "announce") -> None:
    """Let screen readers speak a result as soon as it is there."""
    _announce_component()(key=key, data={"key": key, "text": text}, height=1)


def jump_to(text: str, key: str) -> str:
    """A button, as HTML, that scrolls to the container with this key on the same page."""
    return f'<button type="button" class="tt-jump" data-tt-jump="st-key-{key}">{as_html(text)}\u00a0↓</button>'


def stopped_lines() -> list[str]:
    """What to do when the page lost its connection to the app, as sentences."""
    if not library.settings.is_local:
        where = "The app no longer runs, or its computer cannot be reached from here."
        return [where, "Check that the computer is on and in the same network, and that the app runs on it.", GOES_ON]
    kept = "Projects of Add classes are saved; images on other pages have to be added again."
    start = "Start it again as before, in a terminal with: thirtytwo app"
    return ["The program behind this page no longer runs.", start, f"{GOES_ON} {kept}"]


@st.cache_resource(show_spinner=False)
def _frame_component() -> Any:
    return st.components.v2.component("thirtytwo_frame", js=SCRIPT.read_text(encoding="utf-8"))


@st.cache_resource(show_spinner=False)
def _announce_component() -> Any:
    return st.components.v2.component("thirtytwo_announce", js=ANNOUNCE)
