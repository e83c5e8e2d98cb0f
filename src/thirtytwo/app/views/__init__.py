"""One module for each view of the page.

Internal: may change without notice.
"""
