"""Parameter snapshots: refusals, slices inside the detector, change of binning."""

import math

import pytest

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.params import ReconParams


def params(**changes):
    return ReconParams(**({"center": 100.0, "ortho_x": 96, "ortho_y": 70, "ortho_z": 31} | changes))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"center": math.nan}, "center"),
        ({"rot_z_deg": math.inf}, "rot_z_deg"),
        ({"filter_type": "Hann"}, "Hann"),
        ({"dezinger": 1}, "dezinger"),
        ({"ring_removal": "vo"}, "ring_removal"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(change, word):
    with pytest.raises(ParameterError, match=word):
        params(**change)


def test_slices_outside_are_brought_inside_with_a_sentence_each():
    inside, notes = params(ortho_x=-3, ortho_z=500).clipped(64, 192)
    assert (inside.ortho_x, inside.ortho_y, inside.ortho_z) == (0, 70, 63)
    assert notes == (
        "OrthoX -3 is outside 0..191: showing 0",
        "OrthoZ 500 is outside 0..63: showing 63",
    )


def test_binning_keeps_the_place_in_the_sample_and_comes_back():
    binned = params(center=99.5).rescaled((64, 192), (32, 96))
    assert binned.center == 49.5
    # 26 voxels below the axis are 13 binned ones
    assert (binned.ortho_x, binned.ortho_y, binned.ortho_z) == (48, 35, 15)
    back = binned.rescaled((32, 96), (64, 192))
    assert back.center == 99.5
    assert (back.ortho_x, back.ortho_y) == (96, 70)
    assert abs(back.ortho_z - 31) <= 1
