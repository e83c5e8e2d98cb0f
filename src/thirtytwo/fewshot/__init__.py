"""Few-shot learning: a linear probe on a trained network's features for new classes, without PyTorch.

Internal: may change without notice.
"""

from thirtytwo.fewshot.linear_probe import LEAST, MOST, LinearProbe, fit_linear_probe

__all__ = ["LEAST", "MOST", "LinearProbe", "fit_linear_probe"]
