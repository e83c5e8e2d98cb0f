"""The stages put together: train, train several seeds, tune, score again, report again."""

from thirtytwo.pipeline.again import evaluate, report
from thirtytwo.pipeline.seeds import SeedRuns, train_seeds
from thirtytwo.pipeline.train import Run, train
from thirtytwo.pipeline.tune import Tuned, tune

__all__ = ["Run", "SeedRuns", "Tuned", "evaluate", "report", "train", "train_seeds", "tune"]
