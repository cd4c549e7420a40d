"""python -m tomostream_ioc.recon: slices of a scan file equal those of the engine."""

import stat
import subprocess
import sys

import h5py
import numpy as np
import pytest
from test_recon_phantom import Phantom, engine_for, half_turn, middle

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.offline.cli import main
from tomostream_ioc.offline.job import FileReconstruction
from tomostream_ioc.offline.output import write_aside
from tomostream_ioc.offline.plan import Block, Wanted, blocks
from tomostream_ioc.scan_file import ScanFile

N, N_ROWS, N_ANGLES, CENTER = 64, 40, 96, 30.25
THETA = half_turn(N_ANGLES)


@pytest.fixture(scope="module")
def phantom():
    return Phantom(N, N_ROWS)


@pytest.fixture(scope="module")
def scan_path(phantom, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data"] = phantom.raw(THETA, CENTER)
        file["exchange/data_dark"] = np.stack([phantom.dark() - 1, phantom.dark() + 1])
        file["exchange/data_white"] = phantom.flat()[None]
        file["exchange/theta"] = THETA
    return path


@pytest.fixture(scope="module")
def truth(phantom):
    """Slices by the engine itself: z = 22, y = 20, x = 40."""
    engine = engine_for(phantom, N_ANGLES)
    engine.push(phantom.raw(THETA, CENTER), THETA, np.arange(N_ANGLES))
    params = middle(phantom, center=CENTER, ortho_x=40, ortho_y=20, ortho_z=22)
    slices = engine.reconstruct(params)
    engine.release()
    return slices


def read(path):
    """The slices in a .h5 file by axis, and how they were made."""
    images = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset):
            images[name] = np.array(item)

    with h5py.File(path) as file:
        file.visititems(lambda name, item: take(name.removeprefix("slices/"), item))
        return images, dict(file.attrs)


def test_slices_of_a_file_are_those_of_the_engine(scan_path, truth, tmp_path):
    out = tmp_path / "out.h5"
    slices = ["--slice", "z=22", "--slice", "y=20", "--slice", "x=40"]
    assert main([str(scan_path), "--center", str(CENTER), *slices, "-o", str(out), "--quiet"]) == 0
    images, attributes = read(out)
    for axis, image in images.items():
        np.testing.assert_allclose(image[0], getattr(truth, axis), atol=2e-6)
    assert attributes["center"] == CENTER
    assert attributes["filter_type"] == "Parzen"


def test_blocks_of_rows_give_the_same_as_the_whole(scan_path, truth):
    scan = ScanFile(scan_path, 0)  # read from the file, block by block
    needed = FileReconstruction(scan, "cpu", 1 << 40)
    wanted = Wanted((3, 22), (20,), (40,))
    params = middle(Phantom(N, N_ROWS), center=CENTER)
    whole = needed.slices(wanted, params, needed.plan(wanted, params), lambda n: None)
    parts = [Block(first, min(first + 9, N_ROWS), first, min(first + 9, N_ROWS)) for first in
             range(0, N_ROWS, 9)]  # fmt: skip
    counted = []
    small = needed.slices(wanted, params, parts, counted.append)
    assert sum(counted) == len(parts) * N_ANGLES
    for axis in "zyx":
        np.testing.assert_allclose(getattr(small, axis), getattr(whole, axis), atol=1e-6)
    np.testing.assert_allclose(small.z[1], truth.z, atol=2e-6)
    np.testing.assert_allclose(small.x[0], truth.x, atol=2e-6)
    scan.close()


def test_a_tilted_plane_and_dezinger_reach_the_engine(scan_path, phantom, tmp_path):
    out = tmp_path / "out.h5"
    options = ["--rot-z", "10", "--dezinger", "3", "--filter", "Ramp", "--slice", "z=22"]
    assert main([str(scan_path), "--center", str(CENTER), *options, "-o", str(out)]) == 0
    engine = engine_for(phantom, N_ANGLES)
    engine.push(phantom.raw(THETA, CENTER), THETA, np.arange(N_ANGLES))
    params = middle(
        phantom, center=CENTER, ortho_z=22, rot_z_deg=10.0, dezinger=3, filter_type="Ramp"
    )
    np.testing.assert_allclose(read(out)[0]["z"][0], engine.reconstruct(params).z, atol=2e-6)
    engine.release()


def test_a_whole_turn_uses_every_projection(phantom, tmp_path):
    """Noise falls by the square root of two: both halves are in the slice."""
    theta = np.arange(2 * N_ANGLES) * 360.0 / (2 * N_ANGLES)
    rng = np.random.default_rng(0)
    noise = []
    for part in (slice(0, N_ANGLES), slice(0, 2 * N_ANGLES)):
        path = tmp_path / f"{part.stop}.h5"
        raw = rng.poisson(phantom.raw(theta[part], CENTER) / 50)
        with h5py.File(path, "w") as file:
            file["exchange/data"] = raw.astype(np.uint16)
            file["exchange/data_dark"] = phantom.dark()[None] / 50
            file["exchange/data_white"] = phantom.flat()[None] / 50
            file["exchange/theta"] = theta[part]
        out = tmp_path / "out.h5"
        options = ["--center", str(CENTER), "--slice", "z=22", "--filter", "Ramp", "--quiet"]
        assert main([str(path), *options, "-o", str(out)]) == 0
        noise.append(read(out)[0]["z"][0][28:36, 28:36].std())
    assert noise[1] < 0.85 * noise[0]


def test_the_picture_has_a_panel_per_slice(scan_path, tmp_path, capsys):
    out = tmp_path / "out.png"
    argv = [str(scan_path), "--center", str(CENTER), "--slice", "z=0:40:8", "-o", str(out)]
    assert main(argv) == 0
    import matplotlib.image

    assert matplotlib.image.imread(out).shape[0] > 500
    assert "5 slices" in capsys.readouterr().out


def test_a_program_of_its_own(scan_path, tmp_path):
    out = tmp_path / "out.h5"
    command = [sys.executable, "-m", "tomostream_ioc.recon", str(scan_path), "--center", "30.25"]
    done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert set(read(out)[0]) == {"z", "y", "x"}
    done = subprocess.run([*command, "-o", "x.jpg"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "tomostream_ioc.recon: --output x.jpg: give a name that ends in .png or .h5"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slice", "z=40"], "z 40 is outside 0..39"),
        (["--slice", "w=1"], "use z=67"),
        (["--slice", "z=5:5"], "empty range"),
        (["--slice", "z=a"], "is no index"),
        (["--center", "left"], "give a detector column or auto"),
        (["--center", "-3"], "outside the detector"),
        (["--center", "nan"], "--center: nan is no finite number"),
        (["--rot-x", "inf"], "--rot-x: inf is no finite number"),
        (["--rot-x", "500"], "--rot-x: give -180 to 180 degrees"),
        (["--rot-z", "-180.5"], "--rot-z: give -180 to 180 degrees"),
        (["--rot-y", "steep"], "--rot-y: 'steep' is no number"),
        (["--slice", "z=0:99999999999"], "z 99999999998 is outside 0..39"),
        (["--filter", "Hann"], "invalid choice: 'Hann'"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option (see --help)"),
        (["--memory-limit", "1"], "memory"),
        (["--device", "tpu"], "does not exist"),
        (["--energy", "20"], "give --distance and --alpha and --pixel-size"),
        (
            ["--energy", "20", "--distance", "50", "--alpha", "-1", "--pixel-size", "2"],
            "--alpha: -1 is not greater than 0",
        ),
        (["-o", "/nowhere/out.png"], "no folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(scan_path, tmp_path, capsys, options, message):
    argv = [str(scan_path), "--center", "30", "-o", str(tmp_path / "o.h5"), *options]
    assert main(argv) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_that_is_no_scan(tmp_path, capsys):
    assert main([str(tmp_path / "none.h5"), "-o", str(tmp_path / "o.png")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([str(tmp_path), "-o", str(tmp_path / "o.png")]) == 2
    error = capsys.readouterr().err
    assert "is a folder, not a file" in error
    assert error.count("\n") == 1


@pytest.fixture
def small_scan(tmp_path):
    """Writes a scan of 24 projections, 4 x 6 pixels, with other datasets where they are given."""

    def write(**changes):
        rng = np.random.default_rng(0)
        datasets = {
            "data": rng.integers(500, 900, (24, 4, 6)).astype(np.uint16),
            "data_dark": np.full((1, 4, 6), 10, np.uint16),
            "data_white": np.full((1, 4, 6), 1000, np.uint16),
            "theta": half_turn(24),
        } | changes
        path = tmp_path / "small.h5"
        with h5py.File(path, "w") as file:
            for name, values in datasets.items():
                file[f"exchange/{name}"] = values
        return path

    return write


FEW = {"data": np.full((3, 4, 6), 800, np.uint16), "theta": half_turn(3)}


def flat_with_bad(n_bad):
    flat = np.full((1, 4, 6), 1000, np.uint16)
    flat.ravel()[:n_bad] = 5
    return flat


@pytest.mark.parametrize(
    ("changes", "options", "exit_code", "says"),
    [
        ({"theta": np.full(24, 3.0)}, ["--center", "3"], 2, "every angle in exchange"),
        ({"theta": np.radians(half_turn(24))}, ["--center", "3"], 0, "if they are in radians"),
        ({"data_white": flat_with_bad(24)}, ["--center", "3"], 2, "is nowhere above"),
        ({"data_white": flat_with_bad(2)}, ["--center", "3"], 0, "2 of 24 pixels have no usable"),
        ({"data": np.full((24, 4, 6), np.nan)}, ["--center", "3"], 0, "slices are 0 everywhere"),
        (FEW, [], 1, "too few to find the axis: at least 20 are needed: give --center"),
        (
            {
                "data": np.ones((24, 4, 1)), "data_dark": np.ones((1, 4, 1)),
                "data_white": np.ones((1, 4, 1)),
            }, ["--center", "0"], 2, "1 column",
        ),
    ],
    ids=["one angle", "radians", "no flat", "two bad pixels", "nan", "three angles", "one column"],
)  # fmt: skip
def test_a_scan_that_makes_no_sense_is_told(
    small_scan, tmp_path, capsys, changes, options, exit_code, says
):
    argv = [str(small_scan(**changes)), "-o", str(tmp_path / "o.h5"), "--quiet", *options]
    assert main(argv) == exit_code
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_data_are_never_written_over(small_scan, tmp_path, capsys):
    path = small_scan()
    before = path.read_bytes()
    options = ["--center", "3", "--quiet"]
    assert main([str(path), "-o", str(path), *options]) == 2
    assert "this is the scan itself" in capsys.readouterr().err
    other = tmp_path / "other.h5"
    other.write_bytes(before)
    assert main([str(path), "-o", str(other), *options]) == 2
    assert "not written over" in capsys.readouterr().err
    assert path.read_bytes() == other.read_bytes() == before
    out = tmp_path / "out.h5"
    for _ in range(2):  # its own results it does write over
        assert main([str(path), "-o", str(out), *options]) == 0
    folder = tmp_path / "folder.h5"
    folder.mkdir()
    assert main([str(path), "-o", str(folder), *options]) == 2
    assert "this is a folder" in capsys.readouterr().err


def test_what_can_not_be_written_whole_leaves_the_old_file(tmp_path):
    out = tmp_path / "out.png"
    out.write_bytes(b"old")

    def fail_half_way(path):
        path.write_bytes(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_aside(out, fail_half_way)
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_other_files_beside_the_result_stay(tmp_path):
    """Whatever they are called; a link stays one, and rights stay."""
    others = [tmp_path / name for name in ("out.part.png", ".out.png", "out.png.part")]
    for other in others:
        other.write_bytes(b"a scan")
    out, link = tmp_path / "out.png", tmp_path / "link.png"
    out.write_bytes(b"old")
    out.chmod(0o640)
    link.symlink_to(out)
    write_aside(link, lambda path: path.write_bytes(b"new"))
    assert out.read_bytes() == b"new"
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert {other.read_bytes() for other in others} == {b"a scan"}
    assert len(list(tmp_path.iterdir())) == len(others) + 2


def test_too_many_slices_for_a_picture_are_told_at_once(scan_path, tmp_path, capsys):
    argv = [str(scan_path), "--slice", "z=0:40", "--quiet", "-o", str(tmp_path / "o.png")]
    assert main(argv) == 2
    assert "40 slices are too many" in capsys.readouterr().err


def test_wanted_slices():
    wanted = Wanted.parse(["z=67", "y=80,70", "x=0:100:40", "z=5"], 135, 160)
    assert wanted == Wanted((5, 67), (70, 80), (0, 40, 80))
    assert Wanted.parse([], 135, 160) == Wanted((67,), (80,), (80,))


def test_rows_that_have_to_be_read():
    assert blocks(Wanted(z=(5,)), 100, 50, 0) == [Block(5, 6, 5, 6)]
    # near ones together, far ones not; neighbours for filters, inside the detector
    assert blocks(Wanted(z=(1, 9, 60)), 100, 50, 2) == [Block(0, 12, 1, 10), Block(58, 63, 60, 61)]
    found = blocks(Wanted(y=(3,)), 100, 34, 2)
    assert [(b.core_first, b.core_end) for b in found] == [(0, 30), (30, 60), (60, 90), (90, 100)]
    assert all(b.n_rows <= 34 for b in found)
    assert blocks(Wanted(z=(5,)), 100, 100, 2, whole=True) == [Block(0, 100, 0, 100)]
    with pytest.raises(ConfigError, match="all 100 rows"):
        blocks(Wanted(z=(5,)), 100, 99, 2, whole=True)
