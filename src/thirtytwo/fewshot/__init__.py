"""Few-shot learning: a linear probe on a trained network's features for new classes, without PyTorch.

Internal: may change without notice.
"""

from thirtytwo.fewshot.base import RESIZE, choose_base
from thirtytwo.fewshot.folder import find_class_files, load_classes
from thirtytwo.fewshot.linear_probe import LEAST, MOST, LinearProbe, fit_linear_probe, validate_counts

__all__ = [
    "LEAST",
    "MOST",
    "RESIZE",
    "LinearProbe",
    "choose_base",
    "find_class_files",
    "fit_linear_probe",
    "load_classes",
    "validate_counts",
]
