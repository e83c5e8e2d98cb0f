"""New classes for a trained network from a few pictures each: a linear layer on its features, without PyTorch."""

from thirtytwo.fewshot.linear_probe import LEAST, MOST, Taught, teach

__all__ = ["LEAST", "MOST", "Taught", "teach"]
