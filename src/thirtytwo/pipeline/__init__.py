"""The stages put together: train, train several seeds, tune, put runs together, score again, report again."""

from thirtytwo.pipeline.again import evaluate, report
from thirtytwo.pipeline.ensemble import ensemble
from thirtytwo.pipeline.export import Exported, export_model
from thirtytwo.pipeline.finish import Run
from thirtytwo.pipeline.seeds import SeedRuns, train_seeds
from thirtytwo.pipeline.train import train
from thirtytwo.pipeline.tune import Tuned, tune

__all__ = [
    "Exported",
    "Run",
    "SeedRuns",
    "Tuned",
    "ensemble",
    "evaluate",
    "export_model",
    "report",
    "train",
    "train_seeds",
    "tune",
]
