"""The report, the model card, comparisons and figures of runs.

Internal: may change without notice; `thirtytwo.Comparison` is public.
"""
