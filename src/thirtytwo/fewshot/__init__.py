"""Few-shot learning: a linear probe on a trained network's features for new classes, without PyTorch.

Internal: may change without notice.
"""

from thirtytwo.fewshot.base import RESIZE, choose_base
from thirtytwo.fewshot.folder import find_class_files, load_classes
from thirtytwo.fewshot.labeling import choose_to_label
from thirtytwo.fewshot.linear_probe import LEAST, MOST, MOST_CLASSES, LinearProbe, fit_linear_probe, validate_counts
from thirtytwo.fewshot.next_steps import NextStep, suggest_next_steps
from thirtytwo.fewshot.verdict import Verdict, assess, guess_rate

__all__ = [
    "LEAST",
    "MOST",
    "MOST_CLASSES",
    "RESIZE",
    "LinearProbe",
    "NextStep",
    "Verdict",
    "assess",
    "choose_base",
    "choose_to_label",
    "find_class_files",
    "fit_linear_probe",
    "guess_rate",
    "load_classes",
    "suggest_next_steps",
    "validate_counts",
]
