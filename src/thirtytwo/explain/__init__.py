"""Explain predictions: heatmaps over images, and their faithfulness.

Internal: may change without notice.
"""

from thirtytwo.explain.explainer import Explainer, Explanation

__all__ = ["Explainer", "Explanation"]
