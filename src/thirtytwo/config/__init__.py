"""Strict settings, the schema of recipes, and how they are read and resolved.

Public: `settings`, as in docs/extending.md. The other modules may change without notice.
"""
