"""Scikit-learn's handwritten digits: 1,797 pictures that need no download.

E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import numpy as np

from thirtytwo.data.imageset import DataSet, ImageSet
from thirtytwo.data.plan import AUTO_SIZE, TEST_FRACTION, check, fingerprint
from thirtytwo.data.source import DATASETS, Request, refuse_options
from thirtytwo.data.splits import part_off
from thirtytwo.errors import require
from thirtytwo.images.decode import Pixels, resize

_BRIGHTEST = 16
_TEST_SEED = 0


@DATASETS.register("digits")
def digits(request: Request) -> DataSet:
    """Digits of 8×8 pixels made larger; test is the same stratified fifth whatever the seed."""
    refuse_options(request, "digits", ())
    check(request)
    source = require("sklearn.datasets", "train").load_digits()
    classes = tuple(str(name) for name in source.target_names)
    side = AUTO_SIZE if request.image_size == "auto" else request.image_size
    grey = np.rint(source.images * (255 / _BRIGHTEST)).astype(np.uint8)
    images: Pixels = np.stack([resize(np.repeat(picture[:, :, None], 3, 2), side, request.resize) for picture in grey])
    every = ImageSet(images, source.target.astype(np.int64), classes, np.arange(len(images), dtype=np.int64))
    train, test = (every.take(part) for part in part_off(every.labels, classes, TEST_FRACTION, _TEST_SEED, "testing"))
    return DataSet(
        name="digits",
        train=train,
        val=None,
        test=test,
        fingerprint=fingerprint(classes, [(n, s.images, s.labels) for n, s in (("train", train), ("test", test))]),
        sizes={(grey.shape[2], grey.shape[1]): len(grey)},
    )
