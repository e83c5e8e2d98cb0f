"""Find likely label errors by confident learning, from predictions of images that were not trained on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, require
from thirtytwo.rundir import Predictions


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Labels that may be wrong, lowest label quality first.

    `positions` int64 `(M,)`: indices into the predictions; `suggested` int64 `(M,)`: the predicted class; `quality`
    float64 `(M,)`: label quality score, 0 to 1, lower is more likely wrong.
    """

    positions: npt.NDArray[np.int64]
    suggested: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.positions)


def find_label_issues(predictions: Predictions) -> LabelIssues:
    """Find labels that confident learning (arXiv 1911.00068, cleanlab) flags as wrong.

    The number of wrong labels per pair of classes is estimated from the mean predicted probabilities; that many of the
    least likely labels are flagged where cleanlab's two pruning rules agree. The order is by normalized margin: the
    label's probability minus the largest other one. A label that equals the predicted class is never flagged, nor is
    the only image of a class.

    Args:
        predictions: predictions of images that were not trained on; others give no information.

    Raises:
        DataError: there are no images, or fewer than two classes.
    """
    if not len(predictions.truth) or len(predictions.classes) < 2:
        raise DataError(
            f"Finding label issues needs images of at least 2 classes; found {len(predictions.truth)} images and "
            f"{len(predictions.classes)} classes."
        )
    cleanlab_filter, cleanlab_rank = require("cleanlab.filter", "train"), require("cleanlab.rank", "train")
    probabilities = predictions.probabilities.astype(np.float64)
    quality = cleanlab_rank.get_label_quality_scores(predictions.truth, probabilities, method="normalized_margin")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="May not flag all label issues", category=UserWarning)
        flagged = cleanlab_filter.find_label_issues(predictions.truth, probabilities, filter_by="both", n_jobs=1)
    positions = np.flatnonzero(flagged & (predictions.predicted != predictions.truth))
    positions = positions[np.argsort(quality[positions], kind="stable")]
    return LabelIssues(positions, predictions.predicted[positions], quality[positions])
