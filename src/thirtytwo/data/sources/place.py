"""Local data sets: folders of images or of parquet files."""

from __future__ import annotations

from pathlib import Path

from thirtytwo.data.source import Request
from thirtytwo.data.sources.folder import read_folder
from thirtytwo.data.sources.parquet import find_parquet, read_parquet
from thirtytwo.data.sources.tables import KnownDataSet
from thirtytwo.data.types import DataSet
from thirtytwo.images.decode import list_images


def read_local(root: Path, request: Request, known: KnownDataSet | None = None) -> DataSet:
    """Load a local data set: from parquet files if there are any and no image files, else from image files."""
    if find_parquet(root) and not list_images(root)[0]:
        return read_parquet(root, request, known)
    return read_folder(root, request)
