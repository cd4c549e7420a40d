"""What is done before the first image comes: kernels are compiled, which takes up to half a minute,
and the interpreter is told what kind of program this is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import numpy as np
from event_model import compose_run

from tomostream_ioc.documents.pipeline import Pipeline
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import locate

_SIZE = 256
#: kernels wait for the GIL at most that long; Python's 5 ms cost frames while others write
_SWITCH_INTERVAL_S = 0.0005
#: new objects until the youngest are looked through; Python's 700 are a few peaks
_GC_AFTER = 20_000


def settle() -> None:
    """Set the interpreter up for a stream of images: call it when all is loaded and opened.

    The garbage collector no longer looks through what is there by now, 600000 objects of libraries,
    for which it stopped all threads for 0.4 s now and then.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_AFTER)


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
