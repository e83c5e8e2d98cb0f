"""One module for each verb, and what they share: loading finished runs and writing the records of new ones.

Internal: may change without notice; the functions that `thirtytwo` itself names are public.
"""
