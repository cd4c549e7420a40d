"""Compiles what a chain runs before the first image comes: that takes up to half a minute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from event_model import compose_run

from tomostream_ioc.documents.pipeline import Pipeline
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import locate

_SIZE = 256


def warm_up(make_chain: Callable[[np.ndarray | None], Pipeline], key: str) -> None:
    """Send two points with a peak each through a chain that is thrown away.

    make_chain : the chain that is going to run, without a database, for this background image

    Raises TrackingError: its parameters of locate can't be used.
    """
    rows, cols = np.indices((_SIZE, _SIZE))
    spot = np.exp(-((rows - _SIZE / 2) ** 2 + (cols - _SIZE / 2) ** 2) / 8)
    frames = np.stack([100 + 5000 * spot, 110 + 5000 * spot]).astype(np.uint16)
    chain = make_chain(np.full((_SIZE, _SIZE), 90.0))
    tracker = chain.tracker
    try:
        locate(frames[0].astype(np.float32), tracker.diameter, **tracker.keywords)
    except (TypeError, ValueError) as error:
        raise TrackingError(f"Peaks can't be looked for: {error}") from error
    bundle = compose_run(metadata={"shape": [1, 2], "snaking": [False, False]})
    data_key = {"source": "warm-up", "dtype": "array", "shape": list(frames.shape)}
    described = bundle.compose_descriptor(name="primary", data_keys={key: data_key})  # type: ignore[dict-item]
    chain("start", bundle.start_doc)
    chain("descriptor", described.descriptor_doc)
    for _ in range(2):
        chain("event", described.compose_event({key: frames}, {key: 0.0}, validate=False))
    chain("stop", bundle.compose_stop())
