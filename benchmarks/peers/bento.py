"""The model behind BentoML: bentoml serve bento:Classifier --port PORT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bentoml
import PIL.Image

sys.path.insert(0, str(Path(__file__).parent))

from model import WORKERS, Model


@bentoml.service(workers=WORKERS, traffic={"timeout": 60})
class Classifier:
    """Classifies uploaded images, one at a time."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def predict(self, files: PIL.Image.Image) -> dict[str, Any]:
        return self.model.predict(self.model.pixels(files)[None])[0]
