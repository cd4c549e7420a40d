"""The command `plot`: what it draws of a recorded scan, how it finds it, and what it refuses."""

from __future__ import annotations

import itertools
import shutil

import matplotlib.image
import numpy as np
import pytest
from crystal_scan import BACKGROUND, KEY, N_FRAMES, PIXELS, SHAPE, SPOTS, frames_at, shines
from event_model import compose_run
from matplotlib.patches import Rectangle

from tomostream_ioc.documents import build_chain, open_database, plot
from tomostream_ioc.documents.commands import build_parser
from tomostream_ioc.documents.crystal_figures import CrystalScan, draw
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import MapStack, ScanGrid

pytestmark = pytest.mark.timeout(300)  # recording scans takes long on a busy host

EXTENTS = [[-1.0, 4.0], [10.0, 13.0]]  # y, x: steps of 1 and 0.5
UNITS = ("mm", "mm")
POINTS = list(itertools.product(range(SHAPE[0]), range(SHAPE[1])))


def record(db, images=False, minmass=0.0, points=POINTS, **start):
    """A scan without snaking through the chain into ``db``; the uids of raw run and of tracks."""
    chain = build_chain(
        KEY, np.full(PIXELS, BACKGROUND + 8), diameter=11, search_range=8, memory=14, db=db,
        record_images=images, locate={"percentile": 80, "separation": 15, "minmass": minmass},
    )  # fmt: skip
    tracks = []
    chain.linker.subscribe(lambda name, doc: tracks.append(doc["uid"]), "start")

    def both(name, doc):
        db.insert(name, doc)
        chain(name, doc)

    run = compose_run(metadata=start)
    both("start", run.start_doc)
    motors = ("sample_y", "sample_x")
    keys = {
        name: {"source": "SIM", "dtype": "number", "shape": [], "units": unit}
        for name, unit in zip(motors, UNITS, strict=True)
    }
    camera = {"source": "SIM", "dtype": "array", "dtype_numpy": "<u2", "shape": [N_FRAMES, *PIXELS]}
    stream = run.compose_descriptor(name="primary", data_keys={**keys, KEY: camera})
    both("descriptor", stream.descriptor_doc)
    for point in points:
        data = {"sample_y": 1.0 * point[0], "sample_x": 1.0 * point[1], KEY: frames_at(point)}
        stamps = dict.fromkeys(data, 0.0)
        both("event", stream.compose_event(data=data, timestamps=stamps, validate=False))
    both("stop", run.compose_stop())
    return run.start_doc["uid"], tracks[0]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with four scans, and their uids: raw, tracks."""
    folder = tmp_path_factory.mktemp("plotted")
    grid = {"shape": list(SHAPE), "extents": EXTENTS, "motors": ["sample_y", "sample_x"]}
    with open_database(folder) as db:
        uids = {
            "peaks only": record(db, **grid),
            "no grid": record(db, points=POINTS[:2]),
            "no peaks": record(db, minmass=1e12, points=POINTS[:2], **grid),
            "images": record(db, images=True, **grid),
        }
    return folder, uids


@pytest.fixture(scope="module")
def db(recorded):
    with open_database(recorded[0]) as database:
        yield database


def pixels_of(axis):
    """What the axis shows, as an array."""
    return np.asarray(axis.images[0].get_array())


def command(*options):
    argv = ["plot", *(str(option) for option in options)]
    args = build_parser(argv).parse_args(argv)
    return args.command(args)


def expected_maps():
    return [np.reshape([shines(spot, p) for p in POINTS], SHAPE) for spot in range(len(SPOTS))]


def test_what_is_drawn(recorded, db):
    raw = recorded[1]["images"][0]
    scan, notes = plot.read_scan(db, raw)
    figure = draw(scan)
    axes = [axis for axis in figure.axes if axis.get_title()]
    total, light, *maps = axes

    # the map of each spot, at the motors' positions: half a step beyond the first and last point
    assert len(maps) == len(SPOTS)
    drawn = [pixels_of(axis) for axis in maps]
    for spot, (y, x, *_) in enumerate(SPOTS):
        k = int(np.argmin(np.hypot(scan.maps.y - y, scan.maps.x - x)))
        np.testing.assert_array_equal(drawn[k] > 0, expected_maps()[spot])
        assert drawn[k].max() == 1.0
        assert f"track {scan.maps.particles[k]}: y {y:.0f}"[:10] in maps[k].get_title()
    for axis in (total, *maps):
        assert axis.images[0].get_extent() == [9.75, 13.25, 4.5, -1.5]
        assert axis.images[0].origin == "upper"
        assert axis.get_aspect() == 1.0
    assert (total.get_xlabel(), total.get_ylabel()) == ("sample_x (mm)", "sample_y (mm)")

    # total and light image are those of the images
    images = [np.clip(frames_at(p).mean(axis=0) - BACKGROUND - 8, 0, None) for p in POINTS]
    sums = np.reshape([image.sum() for image in images], SHAPE)
    np.testing.assert_allclose(pixels_of(total), sums, rtol=1e-4)
    contrast = np.max(images, axis=0) - np.min(images, axis=0)
    np.testing.assert_allclose(pixels_of(light), contrast, atol=1e-2)
    assert "42 images" in light.get_title()

    # a square of the peaks' diameter around each, with the map's number
    squares = [patch for patch in light.patches if isinstance(patch, Rectangle)]
    centres = [square.get_center() for square in squares]
    np.testing.assert_allclose(centres, np.stack([scan.maps.x, scan.maps.y], axis=1))
    assert {square.get_width() for square in squares} == {2 * 11 + 1}
    assert [text.get_text() for text in light.texts] == [str(n) for n in scan.maps.particles]
    assert notes == [f"3 tracks, {scan_peaks()} peaks; 3 tracks are drawn"]


def scan_peaks():
    return sum(int(where.sum()) for where in expected_maps())


def test_without_images_it_is_drawn_from_the_peaks(recorded, db):
    scan, _ = plot.read_scan(db, recorded[1]["peaks only"][0])
    assert "drawn from the peaks" in scan.light_of
    assert scan.light.shape == PIXELS  # the raw run's descriptor says it
    np.testing.assert_allclose(scan.total, scan.maps.maps.sum(axis=0), rtol=1e-12)
    for y, x, *_ in SPOTS:
        row, col = round(y), round(x)
        assert scan.light[row, col] == scan.light[row - 4 : row + 5, col - 4 : col + 5].max() > 0
    assert scan.light[2, 2] == 0
    draw(scan, "light")


def test_any_run_of_the_scan_any_abbreviation(recorded, db):
    for name in ("peaks only", "images"):
        raw, tracks = recorded[1][name]
        root = {raw: raw, tracks: raw, db.find(root_run_uid=raw)[0]: raw}
        for uid in root:
            assert raw[:8] in plot.read_scan(db, uid[:12])[0].title
    # the last run in the database belongs to the last scan
    assert recorded[1]["images"][0][:8] in plot.read_scan(db, "-1")[0].title
    uids = list(db)
    assert plot.resolve_uid(db, "-1") == uids[-1]
    assert plot.resolve_uid(db, f"-{len(uids)}") == uids[0] == recorded[1]["peaks only"][0]
    assert plot.resolve_uid(["ab1", "ab12", "cd"], "ab1") == "ab1"
    with pytest.raises(TrackingError, match=r"2 runs' uids start with 'ab': ab1, ab12"):
        plot.resolve_uid(["ab1", "ab12", "cd"], "ab")
    for unknown in ("no-such-run", "", "-99", "-x"):
        with pytest.raises(TrackingError, match=r"No run's uid|is no run"):
            plot.resolve_uid(db, unknown)


def test_newest_tracks_unless_those_are_named(recorded, db):
    """Tracks made anew of the same scan: the scan shows the newest, each run of tracks its own."""
    raw, first = recorded[1]["images"]
    again = build_chain(KEY, diameter=11, search_range=8, memory=14, db=db, locate={"topn": 1})
    for name, doc in db[raw].documents():
        again(name, doc)
    assert len(plot.read_scan(db, first)[0].maps) == len(SPOTS)
    newest, _ = plot.read_scan(db, raw)
    assert newest.maps.maps.astype(bool).sum() == len(POINTS)  # one peak a point


@pytest.mark.parametrize("what", ["all", "total", "maps", "light"])
def test_command_writes_a_picture(what, recorded, tmp_path, capsys):
    path = tmp_path / "maps.png"
    assert command("--db", recorded[0], "--run", recorded[1]["peaks only"][1], "-o", path,
                   "--figure", what, "-n", 2) == 0  # fmt: skip
    picture = matplotlib.image.imread(path)
    assert picture.shape[1] == {"all": 1200, "maps": 1200, "total": 720, "light": 960}[what]
    assert picture[..., :3].std() > 0.1
    said = capsys.readouterr().out
    assert recorded[1]["peaks only"][0][:8] in said
    assert "2 tracks are drawn" in said


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--run", "zzz"], 1, "No run's uid starts with 'zzz'"),
        (["--run", "no grid"], 1, "no shape, map_size or num_points"),
        (["--run", "no peaks"], 1, "has no tracks"),
        (["--db", "nowhere"], 1, "There is no database in nowhere"),
        (["-o", "maps.doc"], 2, "is no picture"),
        (["-o", "not-there/maps.png"], 2, "folder isn't there"),
        (["-n", "0"], 2, "1 or more"),
        (["--half-width", "-3"], 2, "0 pixels or more"),
        (["--dpi", "0"], 2, "10 to 1000"),
    ],
)
def test_refusals_say_why(options, code, says, recorded, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, uids = recorded
    options = [uids[o][0] if o in uids else o for o in options]
    assert command("--db", folder, *options) == code
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_database_without_runs(tmp_path, capsys):
    open_database(tmp_path / "new").close()
    assert command("--db", tmp_path / "new", "-o", tmp_path / "maps.png") == 1
    assert "no runs yet" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "new")


def scan_of(grid, n=2, units=()):
    rng = np.random.default_rng(0)
    maps = rng.uniform(0, 9, (n, *grid.shape))
    place = rng.uniform(10, 50, (2, n))
    stack = MapStack(maps, np.arange(n), place[0], place[1], grid)
    return CrystalScan(stack, maps.sum(axis=0), "mass", np.eye(60), "eye", 5.0, "", units)


def first_map(scan, origin="upper"):
    return next(axis for axis in draw(scan, "total", origin).axes if axis.get_title())


def test_axes_of_unlike_units_have_square_points():
    extents = ((0.0, 1.0), (5.0, 3.0))
    mixed = first_map(scan_of(ScanGrid((3, 5), extents), units=("mm", "deg")))
    assert mixed.get_aspect() == pytest.approx(0.5 / 0.5)
    extents = ((0.0, 1.0), (5.0, 1.0))
    mixed = first_map(scan_of(ScanGrid((3, 5), extents), units=("mm", "deg")))
    assert mixed.get_aspect() == pytest.approx(1.0 / 0.5)
    assert mixed.images[0].get_extent() == [5.5, 0.5, 1.25, -0.25]


def test_no_extents_are_points_and_the_first_row_may_be_below():
    axis = first_map(scan_of(ScanGrid((3, 5))), "lower")
    assert axis.images[0].get_extent() == [-0.5, 4.5, -0.5, 2.5]
    assert axis.images[0].origin == "lower"
    assert axis.get_xlabel() == "column (point)"


def test_one_axis_is_a_line_three_are_refused():
    scan = scan_of(ScanGrid((4,), ((1.0, 2.5),), (False,), ("theta",)))
    figure = draw(scan)
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(np.asarray(line.get_xdata()), [1.0, 1.5, 2.0, 2.5])
    np.testing.assert_array_equal(np.asarray(line.get_ydata()), scan.total)
    with pytest.raises(TrackingError, match="3 axes"):
        scan_of(ScanGrid((2, 2, 2)))


def test_many_maps_and_a_large_detector_fit():
    scan = scan_of(ScanGrid((10, 30)), n=23)
    large = np.zeros((3000, 2500), np.float32)
    large[1501, 1200] = 7.0
    scan = CrystalScan(scan.maps, scan.total, "mass", large, "one pixel", 25.0)
    figure = draw(scan)
    light = pixels_of(figure.axes[1])
    assert max(light.shape) <= 1000
    assert light.max() == 7.0  # not averaged away
    assert sum(bool(axis.get_title()) for axis in figure.axes) == 2 + 23


def test_no_maps_no_picture():
    scan = scan_of(ScanGrid((3, 3)), n=0)
    with pytest.raises(TrackingError, match="no maps to draw"):
        draw(scan)
    with pytest.raises(TrackingError, match="can't be drawn"):
        draw(scan_of(ScanGrid((3, 3))), "everything")
