"""Peak tracking of bluesky documents: a real run engine, proxy and IOC, each a process."""

import signal
import time

import numpy as np
import pytest
from support.ports import environment, free_port
from support.processes import Child, Ioc, wait_for

# the first run in a fresh clone compiles for a while
pytestmark = pytest.mark.timeout(300)
DOCUMENTS = ["-m", "tomostream_ioc.documents"]
SHAPE = (6, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("crystal")


@pytest.fixture(scope="module")
def ports():
    return free_port(), free_port()


@pytest.fixture(scope="module")
def proxy(ports):
    child = Child([*DOCUMENTS, "proxy", *map(str, ports)], environment())
    child.expect("Ready")
    yield child
    child.close()


@pytest.fixture(scope="module")
def ioc(folder, ports, proxy):
    ioc = Ioc(folder, "--read-from", str(folder / "frames"))
    ioc.expect("Ready", 100)
    for record, value in {
        "Source": "Documents",
        "DocsAddress": f"localhost:{ports[1]}",
        "Diameter": 11,
        "Separation": 16,
        "MinMass": 1500,
        "SearchRange": 5,
    }.items():
        ioc.put(f"Crystal:{record}", value, wait=True)
    ioc.put("Crystal:Start", 1)
    wait_for(lambda: "waiting" in ioc.get("Crystal:Status", True), 100, "the source")
    yield ioc
    ioc.close()


def simulate(folder, ports, *options):
    """A scan of the synthetic rod by a run engine, as a process that has ended."""
    sender = Child(
        [
            *DOCUMENTS,
            "simulate",
            "--to",
            f"localhost:{ports[0]}",
            "--rate",
            "20",
            "--shape",
            "x".join(map(str, SHAPE)),
            "--images",
            "128x128",
            "--grains",
            "3",
            "--truth",
            str(folder / "truth.npz"),
            "--folder",
            str(folder / "frames"),
            *options,
        ],
        environment(),
    )
    try:
        sender.expect("Sent run")
    finally:
        sender.close()
    return np.load(folder / "truth.npz")


def scan_fills_the_map(folder, ports, ioc, pixels):
    before = ioc.get("Crystal:Points")
    truth = simulate(folder, ports, "--pixels", pixels)
    n_points = SHAPE[0] * SHAPE[1]
    wait_for(lambda: ioc.get("Crystal:Points") == before + n_points, 30, "every point")
    assert ioc.get("Crystal:FramesReceived") == 2 * ioc.get("Crystal:Points")
    assert ioc.get("Crystal:FramesMissed") == 0

    def complete():
        image = ioc.slices.get(f"{ioc.prefix}Crystal:Map")[0]
        lit = truth["masks"].any(axis=0)
        return image if image.shape == SHAPE and (image[lit] > 0).all() else None

    wait_for(complete, 10, "a map in which each grain shines")
    # a graver sentence, such as of a message refused just before, is shown for some seconds
    wait_for(lambda: "the scan has ended" in ioc.get("Crystal:Status", True), 20, "the end said")


def test_a_scan_of_documents_fills_the_map(folder, ports, ioc):
    scan_fills_the_map(folder, ports, ioc, "inline")
    assert ioc.get("Crystal:FramesRejected") == 0


def test_documents_that_come_pickled_are_refused_and_counted(folder, ports, ioc):
    simulate(folder, ports, "--pickle")
    wait_for(lambda: ioc.get("Crystal:FramesRejected") > 0, 20)
    assert "no document, or a pickled one" in ioc.output


def test_the_next_scan_is_whole_with_pixels_in_files_too(folder, ports, ioc):
    scan_fills_the_map(folder, ports, ioc, "hdf5")


def test_files_of_other_folders_are_not_read(folder, ports, ioc, tmp_path):
    before = ioc.get("Crystal:FramesRejected")
    simulate(folder, ports, "--pixels", "hdf5", "--folder", str(tmp_path))
    wait_for(lambda: ioc.get("Crystal:FramesRejected") >= before + SHAPE[0] * SHAPE[1], 20)
    assert "may not be read" in ioc.output


def test_a_wrong_address_is_refused_with_the_reason(ioc):
    ioc.put("Crystal:Abort", 1, wait=True)
    wait_for(lambda: ioc.get("Crystal:Start") == 0, 10)
    kept = ioc.get("Crystal:DocsAddress")
    ioc.put("Crystal:DocsAddress", "here:there", wait=True)
    try:
        ioc.put("Crystal:Start", 1, wait=True)
        wait_for(lambda: "Not started" in ioc.get("Crystal:Status", True), 10)
        assert "HOST:PORT" in ioc.get("Crystal:Status", True)
        assert ioc.get("Crystal:Start") == 0
    finally:
        ioc.put("Crystal:DocsAddress", kept, wait=True)


def test_the_end_does_not_wait_for_the_libraries_that_were_loaded(ioc):
    """trackpy, pandas and bluesky leave Python much to look through."""
    ioc.put("Crystal:Start", 1)
    wait_for(lambda: "waiting" in ioc.get("Crystal:Status", True), 30, "the source")
    began_s = time.monotonic()
    ioc.signal(signal.SIGTERM)
    assert ioc.wait(20) == 0
    assert time.monotonic() - began_s < 5
