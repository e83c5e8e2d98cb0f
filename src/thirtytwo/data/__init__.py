"""Data sets: decoded images with labels and content hashes, how they are split, and where they are cached.

Public: `types` and `build`, as in docs/extending.md. The other modules may change without notice.
"""
