"""The search for the axis over real CA: a put-callback by libca, a simulated stream."""

import pytest
from support.processes import wait_for
from support.rig import simulated

N_ROWS, N_COLS, N_ANGLES, CENTER, RATE = 32, 128, 160, 58.6, 400


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    what = f"--rows {N_ROWS} --cols {N_COLS} --angles {N_ANGLES} --center {CENTER}"
    folder = tmp_path_factory.mktemp("center")
    with simulated(folder, f"{what} --rate {RATE} --i0 20000") as made:
        yield made


def put_find_center(ioc, limit_s=20):
    token = ioc.ca.put_callback(f"{ioc.prefix}FindCenter", 1)
    wait_for(lambda: ioc.ca.put_done(token), limit_s, "the search")


def full(ioc):
    return ioc.status().startswith("Running") and "so far" not in ioc.status()


def test_axis_is_found_and_put_into_center_when_users_want_it(ioc):
    put_find_center(ioc)
    assert "put StartRecon" in ioc.status()
    assert ioc.ca.info(f"{ioc.prefix}FindCenter")["severity"] == 1

    ioc.put("Center", 80, wait=True)
    ioc.start()
    wait_for(lambda: full(ioc), 30, "the ring to fill")
    ioc.ca.monitor(f"{ioc.prefix}FindCenter")
    put_find_center(ioc)
    assert abs(ioc.get("CenterFound") - CENTER) < 0.25
    assert ioc.get("CenterConfidence") > 0.5
    assert ioc.get("Center") == 80
    assert "Centre found at" in ioc.status()
    assert ioc.ca.info(f"{ioc.prefix}FindCenter")["severity"] == 0
    assert ioc.ca.monitored(f"{ioc.prefix}FindCenter") == [0, 1, 0]

    # the ring of this run is full and nothing was found by itself yet
    ioc.put("CenterAuto", "On", wait=True)
    wait_for(lambda: abs(ioc.get("Center") - CENTER) < 0.25, 20, "Center to follow")
    wait_for(
        lambda: abs(ioc.slices.get(ioc.recon + "Z")[1]["attributes"]["Center"] - CENTER) < 0.25,
        5,
        "slices about the new axis",
    )
    ioc.put("Center", 80, wait=True)
    put_find_center(ioc)
    found = ioc.get("CenterFound")
    assert ioc.get("Center") == found
    assert ioc.get("FramesDropped") == 0

    # both follow before the put completes, and come back
    ioc.put("StreamBinning", "2x", wait=True)
    assert ioc.get("Center") == ioc.get("CenterFound") == (found + 0.5) / 2 - 0.5
    ioc.put("StreamBinning", "1x", wait=True)
    assert ioc.get("Center") == ioc.get("CenterFound") == found


def test_center_follows_by_itself_in_the_next_run(ioc):
    ioc.put("AbortRecon", 1)
    ioc.wait_value("StartRecon", 0)
    ioc.put("CenterAuto", "On", wait=True)
    ioc.put("Center", 70, wait=True)
    ioc.start()
    wait_for(lambda: abs(ioc.get("Center") - CENTER) < 0.25, 30, "Center to follow")
    ioc.put("Center", 70, wait=True)
    ioc.wait_value("StartRecon", 1)
    assert ioc.get("Center") == 70  # once in a run
