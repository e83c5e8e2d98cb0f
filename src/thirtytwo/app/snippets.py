"""Code that uses a downloaded model, to copy."""

from __future__ import annotations

PYTHON = """import thirtytwo

classifier = thirtytwo.load("model.onnx")
for result in classifier.predict(["photo.jpg"], top=3):
    print(result.file, result.top, f"{result.confidence:.1%}", "" if result.known else "(unknown)")
"""

SERVE = """thirtytwo serve --model model.onnx
"""

REST = """curl -F "files=@photo.jpg" "http://127.0.0.1:8032/predict?top=3"
"""
"""A request to the service that `SERVE` starts."""
