"""The model behind BentoML: bentoml serve bento:Classifier --port PORT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import PIL.Image

sys.path.insert(0, str(Path(__file__).parent))

from model import BATCH, WORKERS, Model


@bentoml.service(workers=WORKERS, traffic={"timeout": 60})
class Classifier:
    """Classifies uploaded images; requests that arrive together are one batch."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)
    def predict(self, files: list[PIL.Image.Image]) -> list[dict[str, Any]]:
        return self.model.predict(np.stack([self.model.pixels(file) for file in files]))
