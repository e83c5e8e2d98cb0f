"""What happens to training images: batched, on the device, from the generator that is handed in."""

from thirtytwo.augment import augmix, autoaugment, randaugment, trivialaugment  # noqa: F401  (registers them)
from thirtytwo.augment.registry import AUGMENTATIONS, Augmentation, Terms

__all__ = ["AUGMENTATIONS", "Augmentation", "Terms"]
