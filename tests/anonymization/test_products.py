"""Products that stay in one thread are the products that they stand for."""

import numpy as np
import pytest

from anonymization.products import ONE_THREAD, product


@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [
        (3, 4, 5),  # less than a strip
        (1000, 64, 64),  # strips and a rest
        (1024, 64, 64),  # strips alone
        (5, 2, ONE_THREAD),  # a row is more than a strip may hold
        (0, 4, 5),
    ],
)
def test_a_product_in_strips_is_the_product(rows: int, inner: int, columns: int) -> None:
    random = np.random.default_rng(1)
    left = random.integers(-9, 9, (rows, inner)).astype(np.float32)
    right = random.integers(-9, 9, (inner, columns)).astype(np.float32)
    for given in (right, np.asfortranarray(right)):
        assert np.array_equal(product(left, given), left @ given)
