"""Where a model looks: maps over pictures, and scores of how much they mean."""

from thirtytwo.explain.explainer import Explainer, Explanation

__all__ = ["Explainer", "Explanation"]
