"""Which of two peaks that are too close is left out: trackpy's choice, in ties as well."""

from __future__ import annotations

import numpy as np
import pytest
from trackpy.find import where_close

from tomostream_ioc.tracking.peak_table import _where_close


@pytest.mark.parametrize("n", [1, 2, 3, 10, 300, 1500])
@pytest.mark.parametrize("places", ["on pixels", "between"])
def test_the_same_peaks_are_left_out(n, places):
    rng = np.random.default_rng(n)
    for _ in range(5):
        at = rng.integers(0, 300, (n, 2)) / (1.0 if places == "on pixels" else 3.0)
        mass = rng.integers(0, 5, n).astype(np.float64)  # many are equal
        theirs = np.asarray(where_close(at, (20.0, 20.0), mass), np.int64)
        np.testing.assert_array_equal(_where_close(at, 20.0, mass), theirs)
