"""Peaks, tracks and maps out of the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tomostream_ioc.documents.crystal_mapper import CrystalMapper
from tomostream_ioc.documents.database import Database
from tomostream_ioc.documents.peak_tracker import COLUMNS, PeakTracker
from tomostream_ioc.documents.track_linker import PARTICLE, TrackLinker, grid_of
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import MapStack


def find_run(db: Database, uid: str, stage: str) -> str:
    """The newest run of ``stage`` (such as "track_linker") that is ``uid`` or comes from it.

    ``uid`` may be that run itself, any run that it was derived from, or one derived from the same.

    Raises TrackingError: there is none.
    """
    if uid in db:
        start = db[uid].start
        if start.get("analysis_stage") == stage:
            return uid
        below = db.find(analysis_stage=stage, parent_run_uid=uid)
        if below:
            return below[0]
        uid = start.get("root_run_uid", uid)
    found = db.find(analysis_stage=stage, root_run_uid=uid)
    if not found:
        raise TrackingError(f"The database has no {stage} run of {uid}.")
    return found[0]


def read_peaks(db: Database, uid: str) -> pd.DataFrame:
    """Peaks of a run as trackpy has them: y, x, mass, size, ecc, signal, raw_mass, ep, frame.

    See `find_run` for ``uid``, here and below. Raises TrackingError: no such run.
    """
    return _table(db, find_run(db, uid, PeakTracker.stage_name), COLUMNS)


def read_tracks(db: Database, uid: str) -> pd.DataFrame:
    """Linked peaks of a run: the columns of `read_peaks` and particle."""
    return _table(db, find_run(db, uid, TrackLinker.stage_name), (*COLUMNS, PARTICLE))


def read_maps(db: Database, uid: str) -> MapStack:
    """Maps of a run's tracks, brightest first. Raises TrackingError too for a run without grid."""
    run = db[find_run(db, uid, CrystalMapper.stage_name)]
    grid = grid_of(run.start)
    if grid is None:
        raise TrackingError(f"Run {run.start['uid']} has no grid, and so no maps.")
    if "primary" not in list(run):
        none = np.empty(0)
        return MapStack(np.empty((0, *grid.shape)), np.empty(0, np.int64), none, none, grid)
    maps = _columns(run, ("map", PARTICLE, "y", "x"))
    return MapStack(
        np.asarray(maps["map"], np.float64).reshape(-1, *grid.shape),
        np.asarray(maps[PARTICLE], np.int64),
        np.asarray(maps["y"], np.float64),
        np.asarray(maps["x"], np.float64),
        grid,
    )


def _table(db: Database, uid: str, columns: tuple[str, ...]) -> pd.DataFrame:
    run = db[uid]
    if "primary" not in list(run):
        return pd.DataFrame({name: np.empty(0) for name in columns})
    stored = set(run.client["primary"].metadata["data_keys"])
    order = [name for name in columns if name in stored] + sorted(stored - set(columns))
    read = _columns(run, tuple(order))
    return pd.DataFrame({name: read[name] for name in order})


def _columns(run: Any, names: tuple[str, ...]) -> Mapping[str, np.ndarray]:
    data = run.client["primary"].read(variables=list(names))
    return {name: np.asarray(data[name]) for name in names}
