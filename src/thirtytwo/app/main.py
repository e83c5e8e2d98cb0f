"""The script that Streamlit runs for every interaction: pages and error handling."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from thirtytwo.app import intake, library, look_twice, originals, photos, session
from thirtytwo.app.components import with_errors
from thirtytwo.app.frame import show_frame
from thirtytwo.app.images import warn_before_leaving
from thirtytwo.app.navigation import remember_pages
from thirtytwo.app.views import classify, compare, data, explore, fewshot, help, models, train

STYLE, ICON = (Path(__file__).with_name(name) for name in ("page.css", "icon.png"))


def main() -> None:
    """Show the requested page."""
    st.set_page_config(page_title="thirtytwo", page_icon=str(ICON), layout="centered")
    pages = [
        st.Page(
            with_errors(classify.show),
            title="Classify",
            icon=":material/image_search:",
            url_path="classify",
            default=True,
        ),
        st.Page(with_errors(compare.show), title="Compare", icon=":material/balance:", url_path="compare"),
        st.Page(with_errors(explore.show), title="Explore", icon=":material/grid_view:", url_path="explore"),
        st.Page(with_errors(data.show), title="Data", icon=":material/fact_check:", url_path="data"),
        st.Page(with_errors(train.show), title="Train", icon=":material/model_training:", url_path="train"),
        st.Page(with_errors(models.show), title="Models", icon=":material/deployed_code:", url_path="models"),
        st.Page(with_errors(fewshot.show), title="Add classes", icon=":material/school:", url_path="teach"),
        st.Page(with_errors(help.show), title="Help", icon=":material/help:", url_path="help"),
    ]
    page = st.navigation(pages, position="top")
    remember_pages(pages)
    st.html(STYLE)
    show_frame(pages, page)
    st.html(originals.STYLE)
    originals.begin()
    with st.container():  # which always is there, so that the page keeps its place
        with_errors(intake.go_on)()
    photos.keep_images()
    look_twice.keep()
    library.keep_choice()
    page.run()
    originals.show_viewer()
    warn_before_leaving(unsaved=session.has_unsaved())


main()
