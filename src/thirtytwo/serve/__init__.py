"""The HTTP service.

Internal: may change without notice; the HTTP interface is public.
"""
