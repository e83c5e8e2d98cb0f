"""Classify images with `model.onnx` alone, without PyTorch.

Internal: may change without notice; `thirtytwo.load` and `thirtytwo.Classifier` are public.
"""
