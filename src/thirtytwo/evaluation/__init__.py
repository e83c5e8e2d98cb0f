"""Metrics with intervals, tests, calibration, out-of-distribution detection, and robustness.

Internal: may change without notice.
"""
