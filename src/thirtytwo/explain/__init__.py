"""Explain predictions: heatmaps over images, and their faithfulness."""

from thirtytwo.explain.explainer import Explainer, Explanation

__all__ = ["Explainer", "Explanation"]
