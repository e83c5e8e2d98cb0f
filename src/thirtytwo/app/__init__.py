"""The page in the browser, with Streamlit.

Internal: may change without notice.
"""
