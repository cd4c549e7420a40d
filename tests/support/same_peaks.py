"""Comparing locate with trackpy's: tables, warnings and exceptions."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import trackpy


def outcome(function, *arguments, **keywords):
    """The table, or the exception, and the texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - whatever trackpy raises is to be raised
            result = error
    # how trackpy calls pandas is its own affair
    own = [w for w in caught if not w.category.__name__.startswith("Pandas")]
    return result, sorted((w.category.__name__, str(w.message)) for w in own)


def assert_same_tables(ours, theirs):
    """``ep`` within 1e-9, all else, types and index included, to the last bit."""
    assert list(ours.columns) == list(theirs.columns)
    errors = [c for c in theirs.columns if c.startswith("ep")]
    pd.testing.assert_frame_equal(
        ours.drop(columns=errors), theirs.drop(columns=errors), check_exact=True
    )
    for column in errors:
        np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-9, atol=0)


def assert_same_as_trackpy(locate, image, diameter, **keywords):
    """``locate`` does with ``image`` what `trackpy.locate` does; returns its table or exception."""
    ours, our_warnings = outcome(locate, image, diameter, **keywords)
    theirs, their_warnings = outcome(trackpy.locate, image, diameter, **keywords)
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), ours
        assert str(ours) == str(theirs)
    else:
        assert not isinstance(ours, Exception), ours
        assert_same_tables(ours, theirs)
    assert our_warnings == their_warnings
    return ours
