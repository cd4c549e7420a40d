"""The simulated stream as a real process on loopback, read by pvapy, p4p and a real libca."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from sim_process import LIBCA, LIMIT_S, PREFIX, PVAPY, Frames, get, sim
from support.processes import wait_for

from tomostream_ioc.sim.faults import FaultPlan, FaultRates
from tomostream_ioc.sim.phantom import default_phantom


def test_pvapy_sees_what_the_totals_say():
    """Ids, order, losses, rate, structures and values, as an independent client sees them."""
    faults = ["--loss", "0.1", "--duplicates", "0.05", "--disorder", "0.1", "--seed", "3"]
    scan = ["--rows", "24", "--cols", "40", "--angles", "12", "--center", "18.5", "--turns", "3"]
    pace = ["--frames", "100", "--rate", "100", "--idle"]
    with sim(*faults, *scan, *pace, "--noise", "none") as running:
        names = [running.ready[name] for name in ("dark", "flat", "theta")]
        assert names[0] == PREFIX + "StreamDarkFields"
        client = running.client(PVAPY, running.ready["image"], *names)
        assert client.stdout is not None
        assert client.stdout.readline() == "subscribed\n"
        running.command("start")
        ended = wait_for(
            lambda: (r := running.report())["last_id"] >= 100 and r, LIMIT_S, "the end"
        )
        totals = wait_for(lambda: (r := running.report()) == ended and r, LIMIT_S, "quiet")
        saw = json.loads(client.communicate(f"{totals['sent']}\n", timeout=15)[0])
        assert running.stop() == totals

    seen = saw["seen"]
    plan = FaultPlan(3, FaultRates(loss=0.1, duplicates=0.05, disorder=0.1))
    order = [n for k in range(100) for n in plan.send_order(k)] + list(plan.flush())
    assert [frame["id"] for frame in seen] == [k + 1 for k in order]
    assert totals["lost_ids"] == [k + 1 for k in plan.lost]
    assert totals["lost"] == plan.totals.lost > 0
    assert totals["duplicated"] == plan.totals.duplicated > 0
    assert totals["swapped"] == plan.totals.swapped > 0

    assert {tuple(frame["dims"]) for frame in seen} == {(40, 24)}
    assert {frame["member"] for frame in seen} == {"ushortValue"}
    assert {frame["attribute"] for frame in seen} == {"ColorMode"}
    times = [frame["time_s"] for frame in seen]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 60
    paced_s = (order[-1] - order[0]) / 100
    assert 0.9 * paced_s < times[-1] - times[0] < 3 * paced_s  # never too fast; slow when loaded

    dark, flat, theta = (saw["fields"][name] for name in names)
    assert (dark["sizex"], dark["sizey"], len(dark["value"])) == (40, 24, 960)
    assert theta["sizex"] == len(theta["value"]) == 72
    np.testing.assert_allclose(theta["value"], 15.0 * np.arange(72), atol=1e-4)
    assert saw["structures"].count("FLOAT") == 3
    phantom = default_phantom(24, 40)
    dark_sum, signal_counts = np.sum(dark["value"]), np.subtract(flat["value"], dark["value"])
    for frame in seen[::7]:
        p = phantom.projection(math.radians(15.0 * (frame["id"] - 1)), 18.5).ravel()
        expected = dark_sum + np.sum(signal_counts * np.exp(-p))
        assert frame["sum"] == pytest.approx(expected, abs=0.5 * p.size)


def test_retake_binning_and_restart():
    size = ["--size", "64", "--angles", "20", "--rate", "150", "--settle", "0.3"]
    with sim(*size) as running, running.pva() as context:
        frames = Frames(running, context)
        frames.wait(5)
        assert "any value int32_t = 0" in frames.attributes  # ImageJ's viewer wants an int32
        watched = ["FrameType", "StreamMessage", "StreamRetakeFlat"]
        before = np.array(get(context, running.ready["flat"])["value"])
        put = running.put("StreamRetakeFlat", "1", *watched)
        assert put["took"] > 0.5  # the put completed only when the shutter was open again
        assert put["value"] == "Done"
        told = {name: [v for n, v in put["changes"] if n == name] for name in watched}
        assert told["FrameType"] == ["Projection", "FlatField", "Projection"]
        assert told["StreamMessage"] == ["Done", "Capturing flat fields", "Done"]
        assert told["StreamRetakeFlat"] == ["Done", "Capture", "Done"]
        after = np.array(get(context, running.ready["flat"])["value"])
        assert not np.array_equal(before, after)  # new frames, new noise
        np.testing.assert_allclose(after.mean(), before.mean(), rtol=0.01)
        # the flat frames really were in the stream, with ids of their own
        assert running.report()["fields"] == 10

        def flats() -> list[int]:
            seen = frames.seen.copy()
            return [i for i, image in seen if abs(image.mean() / after.mean() - 1) < 0.01]

        wait_for(lambda: len(flats()) == 10, LIMIT_S, "ten flat frames")
        assert np.ptp(flats()) == 9

        running.put("StreamBinning", "2x")
        wait_for(lambda: frames.seen[-1][1].shape == (32, 32), LIMIT_S, "binned frame")
        binned = get(context, running.ready["flat"])
        assert (binned["sizex"], binned["sizey"]) == (32, 32)
        mean = after.reshape(32, 2, 32, 2).mean(axis=(1, 3)).ravel()
        np.testing.assert_allclose(binned["value"], mean, rtol=1e-5)

        assert running.put("AbortScan", "1")["value"] == "No"
        wait_for(
            lambda: running.put("StartScan", "0")["value"] == "Done", LIMIT_S, "a second start"
        )
        last_id, n_seen = frames.seen[-1][0], len(frames.seen)
        assert last_id > 10
        running.command("start")
        # frames of the old scan may still have been on their way
        wait_for(
            lambda: 1 in [i for i, _ in frames.seen[n_seen:]],
            LIMIT_S,
            "a new scan, which counts from the beginning",
        )
        running.stop()


def test_scan_type_and_sim_records():
    with sim("--size", "32", "--angles", "6", "--idle", "--turns", "2") as running:
        with running.pva() as context:
            frames = Frames(running, context)
            refused = running.put("StreamScanType", "7")
            assert refused["value"] == "continuous"
            running.put("StreamScanType", "backforth")
            running.put("SimRate", "200")
            running.put("SimLossRate", "2")  # no probability: refused
            client = running.client(LIBCA, PREFIX + "StartScan", "1", PREFIX + "NumAngles")
            frames.wait(12)
            theta = get(context, running.ready["theta"])["value"]
            np.testing.assert_allclose(
                theta, 30.0 * np.array([0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0] * 2)
            )
            by_id = dict(frames.seen)
            np.testing.assert_array_equal(by_id[6], by_id[7])
            np.testing.assert_array_equal(by_id[1], by_id[12])
            assert running.report()["lost"] == 0
            running.put("AbortScan", "1")
            put = json.loads(client.communicate(timeout=15)[0].splitlines()[-1])
            assert put["value"] == "Done"  # the put-callback ended with the scan
            assert put["changes"][-1] == ["NumAngles", "6"]
        running.stop(n_log_lines=2)  # one for each put that was refused
