"""The stages put together: train, train several seeds, score again, report again."""

from thirtytwo.pipeline.again import evaluate, report
from thirtytwo.pipeline.seeds import SeedRuns, train_seeds
from thirtytwo.pipeline.train import Run, train

__all__ = ["Run", "SeedRuns", "evaluate", "report", "train", "train_seeds"]
