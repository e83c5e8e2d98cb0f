"""Image files: found, decoded to uint8 RGB pixels, hashed and drawn.

Internal: may change without notice.
"""
