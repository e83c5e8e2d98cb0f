"""Prediction, tuning and serving on a Ray cluster (extra `scale`)."""
