"""One module for each source of images: folders, tables, parquet files, the hub, CIFAR and digits.

Internal: may change without notice.
"""
