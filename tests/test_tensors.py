from __future__ import annotations

import pytest

from thirtytwo.tensors import even_batches


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [
        (0, 10, []),
        (1, 10, [1]),
        (10, 10, [10]),
        (11, 10, [5, 6]),
        (1001, 500, [333, 334, 334]),
        (4, 3, [2, 2]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_batches_are_even(count: int, most: int, sizes: list[int]) -> None:
    images = list(range(count))
    batches = [images[part] for part in even_batches(count, most)]
    assert [len(batch) for batch in batches] == sizes
    assert [image for batch in batches for image in batch] == images
