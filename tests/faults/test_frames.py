"""Faults 1 to 3 and 6 to 9: frames that do not fit, change, or come in a wrong order."""

import numpy as np
import pytest
from support.processes import wait_for


def test_1_dimensions_that_do_not_fit_are_rejected_and_the_stream_goes_on(rig):
    rig.run()
    rig.send(2)
    rig.send(3, dims="4x4")
    rig.send(4, 5)
    rig.wait_received(5)
    assert rig.counts("Rejected", "Missed") == (1, 0)
    rig.ioc.wait_status("says 4 x 4")
    wait_for(lambda: rig.ioc.get("BufferSize").endswith("/60"), 5)


def test_1_sustained_change_of_size_rearms_and_scales(rig):
    rig.run()
    rig.send(2, 3)
    rig.send(4, 5, 6, 7, rows=16, cols=24)
    rig.ioc.wait_value("OrthoZ", 8)
    assert rig.ioc.get("OrthoX") == 12
    assert rig.ioc.get("Center") == pytest.approx(24.5 / 2 - 0.5)
    wait_for(lambda: rig.ioc.slices.get(rig.ioc.recon)[1]["sizes"] == [72, 24], 10)
    assert rig.counts("Rejected", "Missed") == (3, 0)
    # and back, to where it was
    rig.send(8, 9, 10, 11)
    rig.ioc.wait_value("OrthoZ", 16)
    rig.ioc.put("Center", 24)


def test_2_change_of_type_rearms_and_says_so(rig):
    rig.run()
    rig.send(2, 3)
    rig.send(4, 5, 6, 7, dtype="float32")
    rig.ioc.wait_status("float32")
    rig.ioc.wait_status("Running")
    rig.send(*range(8, 68), dtype="float32")
    rig.ioc.wait_value("FramesReceived", 67)
    image, _ = wait_for(
        lambda: (
            (got := rig.ioc.slices.get(rig.ioc.recon + "Z"))[1]["attributes"]["NumAngles"] == 60
            and got
        ),
        10,
    )
    # -log of ramps of counts in 0..119 over a flat of 3000: bytes taken for another type give 1e3
    assert np.isfinite(image).all()
    assert np.abs(image).max() < 10


@pytest.mark.parametrize("codec", ["lz4", "bslz4", "blosc", "jpeg"])
def test_3_compressed_frames_are_decoded(rig, codec):
    options = {"codec": codec, "dtype": "uint8" if codec == "jpeg" else "uint16"}
    rig.start()
    rig.send(*range(1, 6), **options)
    rig.wait_received(5)
    assert rig.counts("Rejected", "Missed") == (0, 0)
    rig.ioc.wait_status("5 of 60 angles")


def test_3_unknown_codec_is_rejected_by_name(rig):
    rig.run()
    rig.send(2, codec="zip9000")
    rig.ioc.wait_status("zip9000")
    rig.send(3)
    rig.wait_received(3)
    assert rig.counts("Rejected", "Missed") == (1, 0)


def test_6_sixteen_bit_ids_wrap(rig):
    rig.tomoscan.do("first_id 65533")
    try:
        rig.start()
        rig.send(65534, 65535, 0, 1, 2)
        rig.wait_received(5)
        assert rig.counts("Missed", "Rejected", "Duplicate", "Disordered") == (0, 0, 0, 0)
        rig.ioc.wait_status("5 of 60 angles")
    finally:
        rig.tomoscan.do("first_id 0")


def test_6_ids_wrap_at_2_to_the_31(rig):
    last = 2**31 - 1
    rig.tomoscan.do(f"first_id {last - 3}")
    try:
        rig.start()
        rig.send(last - 2, last - 1, last, -(2**31), -(2**31) + 1)
        rig.wait_received(5)
        assert rig.counts("Missed", "Rejected") == (0, 0)
        rig.ioc.wait_status("5 of 60 angles")
    finally:
        rig.tomoscan.do("first_id 0")


def test_7_jump_far_back_is_a_new_epoch_and_the_ring_is_kept(rig):
    rig.run()
    rig.detector.do("burst 599 start=2 hz=2000")
    rig.wait_received(600)
    rig.ioc.wait_status("Running")
    rig.send(1, 2, 3)
    rig.wait_received(603)
    assert rig.counts("Missed", "Duplicate", "Rejected") == (0, 0, 0)
    _, facts = rig.ioc.slices.get(rig.ioc.recon + "Z")
    assert facts["attributes"]["NumAngles"] == 60


def test_8_and_9_duplicates_gaps_and_disorder_are_counted_exactly(rig):
    rig.run()
    rig.send(2, 3, 3, 6, 5, 9, 8, 9)
    rig.wait_received(9)
    # 4 and 7 never came; 5 and 8 came late; 3 and 9 twice
    assert rig.counts("Missed", "Disordered", "Duplicate", "Rejected") == (2, 2, 2, 0)
    rig.ioc.wait_status("7 of 60 angles")


def test_9_late_frames_take_their_own_angle(rig):
    """The same 60 frames in order and out of order give the same slice."""
    rig.run()
    rig.send(*range(2, 61))
    wait_for(
        lambda: rig.ioc.slices.get(rig.ioc.recon + "Z")[1]["attributes"]["NumAngles"] == 60, 10
    )
    expected, _ = rig.ioc.slices.get(rig.ioc.recon + "Z")
    rig.abort()
    rig.scan()
    rig.run()
    order = np.arange(2, 61).reshape(-1)
    swapped = order.copy()
    swapped[:58:2], swapped[1:58:2] = order[1:58:2], order[:58:2]
    rig.send(*swapped)
    rig.wait_received(60)

    def whole_ring():
        image, facts = rig.ioc.slices.get(rig.ioc.recon + "Z")
        # 1 of 60 when this run began: these are no slices of the run before
        return image if facts["attributes"]["NumAngles"] == 60 else None

    wait_for(lambda: "so far" not in rig.ioc.status(), 5)
    got = wait_for(whole_ring, 5)
    assert rig.counts("Missed")[0] == 0
    assert rig.counts("Disordered")[0] == 29
    np.testing.assert_allclose(got, expected, atol=1e-5)
