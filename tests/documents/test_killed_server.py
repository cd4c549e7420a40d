"""A server that is killed in the middle of a run: what it stored is there."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from command_site import LIMIT_S
from document_site import SHAPE, Site, frames_so_far, uid_of
from support.processes import wait_for

from tomostream_ioc.documents import open_database, read_peaks, read_tracks
from tomostream_ioc.documents.database import FLUSH_S

RATE_HZ = 8


@pytest.mark.timeout(900)
def test_a_server_killed_in_a_run_leaves_what_it_stored(tmp_path):
    site = Site(tmp_path)
    try:
        scan = site.start(
            "simulate", *site.scan, "--rate", RATE_HZ, "--background", site.background
        )
        site.proxy.expect("Ready", LIMIT_S)
        wait_for(site.background.exists, LIMIT_S)
        server = site.serve("--status-period", 0.2, "--record-raw")
        uid = server.expect("Run ", LIMIT_S).split()[1]
        # more than what may wait
        wait_for(lambda: frames_so_far(server) > 4 * FLUSH_S * RATE_HZ, LIMIT_S)
        server.process.kill()
        assert server.wait(LIMIT_S) == -signal.SIGKILL
        processed = frames_so_far(server)
        # the next server takes the next run, into the same folder
        again = site.serve()
        scan.process.kill()
        second = site.start("simulate", *site.scan, "--rate", 40)  # it waits for the server
        again.expect("Connected", LIMIT_S)
        whole = again.expect("Run ", LIMIT_S)
        while " is " not in whole:
            whole = again.expect("Run ", LIMIT_S)
        assert f"Run {uid_of(second.expect('Sent run', LIMIT_S))} is whole" in whole
        again.signal(signal.SIGTERM)
        assert again.wait(LIMIT_S) == 0, again.output
    finally:
        for child in site.children:
            child.close()

    with open_database(tmp_path / "db") as db:
        assert db[uid].stop is None
        cut, tracks = read_peaks(db, uid), read_tracks(db, uid)
        all_of_it = read_peaks(db, whole.split()[1])  # the same crystal
        last = int(cut["frame"].to_numpy().max())
        # twice the time is allowed for: a busy machine takes long to store
        assert processed - 2 * FLUSH_S * RATE_HZ <= last < SHAPE[0] * SHAPE[1]
        same = all_of_it[all_of_it["frame"] <= last].reset_index(drop=True)
        assert cut.equals(same)
        linked = same[: len(tracks)]
        assert len(tracks)
        np.testing.assert_array_equal(tracks["y"], linked["y"])
        # of the scan's own run, images are in their file, and rows that were stored find them
        images = db.client[uid]["primary"]["dexela_image"]
        assert images.shape[0] >= processed - 2 * FLUSH_S * RATE_HZ
        assert np.asarray(images[0]).max() > 0
