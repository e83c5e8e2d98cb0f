"""Other formats of a trained model, and whether their outputs agree with the original's.

Public: `quantize.ExportFormat`, as in docs/extending.md. Everything else may change without notice.
"""
