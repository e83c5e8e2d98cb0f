"""Which labels look wrong, judged by predictions of pictures that were not trained on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, require
from thirtytwo.rundir import Predictions


@dataclass(frozen=True, eq=False)
class Suspects:
    """Labels that may be wrong, most suspicious first.

    `positions` int64 `(M,)`, places in the predictions; `suggested` int64 `(M,)`, the class the network gives instead;
    `quality` float64 `(M,)`, 0 to 1, lower is more suspicious.
    """

    positions: npt.NDArray[np.int64]
    suggested: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.positions)


def suspect_labels(predictions: Predictions) -> Suspects:
    """Labels that confident learning (arXiv 1911.00068, cleanlab) takes for wrong.

    How many labels of each class are wrong, and for which class they were taken, is estimated from the mean probability
    of each class; that many of the least likely labels are suspected, where both ways of choosing them agree. Ranked by
    normalised margin: the label's probability less the largest other one. A picture whose label the network gives too
    is never suspected, nor is the only one of its class.

    Only predictions of pictures that were not trained on say anything.

    Raises:
        DataError: no rows, or fewer than two classes.
    """
    if not len(predictions.truth) or len(predictions.classes) < 2:
        raise DataError(
            f"Suspecting labels needs pictures of 2 classes at least; found {len(predictions.truth)} pictures and "
            f"{len(predictions.classes)} classes."
        )
    issues, rank = require("cleanlab.filter", "train"), require("cleanlab.rank", "train")
    probabilities = predictions.probabilities.astype(np.float64)
    quality = rank.get_label_quality_scores(predictions.truth, probabilities, method="normalized_margin")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="May not flag all label issues", category=UserWarning)
        found = issues.find_label_issues(predictions.truth, probabilities, filter_by="both", n_jobs=1)
    positions = np.flatnonzero(found & (predictions.predicted != predictions.truth))
    positions = positions[np.argsort(quality[positions], kind="stable")]
    return Suspects(positions, predictions.predicted[positions], quality[positions])
