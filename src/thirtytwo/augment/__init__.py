"""Augmentation of training images: in batches, on their device, with randomness from a given generator.

Public: the names below, as in docs/extending.md. The modules may change without notice.
"""

from thirtytwo.augment import policies  # noqa: F401  (registers them)
from thirtytwo.augment.operations import AUGMENTATIONS, Augmentation, Terms

__all__ = ["AUGMENTATIONS", "Augmentation", "Terms"]
