"""Few-shot learning: a linear probe on a trained network's features for new classes, without PyTorch."""

from thirtytwo.fewshot.linear_probe import LEAST, MOST, Taught, teach

__all__ = ["LEAST", "MOST", "Taught", "teach"]
