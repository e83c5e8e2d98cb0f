"""The stages put together: train, score again, report again."""

from thirtytwo.pipeline.again import evaluate, report
from thirtytwo.pipeline.train import Run, train

__all__ = ["Run", "evaluate", "report", "train"]
