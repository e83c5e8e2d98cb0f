"""Scikit-learn's handwritten digits: 1,797 images that need no download.

E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import numpy as np

from thirtytwo.data.build import fingerprint
from thirtytwo.data.split import TEST_FRACTION, split_off
from thirtytwo.data.survey import AUTO_SIZE
from thirtytwo.data.types import DATASETS, DataSet, ImageSet, Request, refuse_options
from thirtytwo.data.validate import check_request
from thirtytwo.errors import DataError, require
from thirtytwo.images.content import hash_pixels
from thirtytwo.images.pixels import Pixels, resize

_BRIGHTEST = 16
_TEST_SEED = 0


@DATASETS.register("digits")
def digits(request: Request) -> DataSet:
    """Handwritten digits of 8×8 pixels, enlarged; the test set is the same 20 % for every seed."""
    refuse_options(request, "digits", ())
    if request.group_by:
        raise DataError("digits does not support groups.", "Remove --group-by (data.group_by).")
    check_request(request)
    source = require("sklearn.datasets", "train").load_digits()
    classes = tuple(str(name) for name in source.target_names)
    side = AUTO_SIZE if request.image_size == "auto" else request.image_size
    gray = np.rint(source.images * (255 / _BRIGHTEST)).astype(np.uint8)
    colored = np.repeat(gray[:, :, :, None], 3, axis=3)
    images: Pixels = np.stack([resize(image, side, request.resize) for image in colored])
    hashes = np.array([hash_pixels(image) for image in colored], dtype=np.uint64)
    rows = np.arange(len(images), dtype=np.int64)
    every = ImageSet(images, source.target.astype(np.int64), classes, rows, hashes=hashes)
    train, test = (every.take(part) for part in split_off(every, TEST_FRACTION, _TEST_SEED, "testing"))
    return DataSet(
        name="digits",
        train=train,
        val=None,
        test=test,
        fingerprint=fingerprint(classes, [(n, s.images, s.labels) for n, s in (("train", train), ("test", test))]),
        sizes={(gray.shape[2], gray.shape[1]): len(gray)},
    )
