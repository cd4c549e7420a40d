"""Peak tracking of documents that only clients with a key may send and read: real processes."""

import contextlib
import shutil

import pytest
from bluesky import RunEngine
from bluesky.plans import grid_scan
from support.ports import environment, free_port
from support.processes import Child, Ioc, wait_for

from tomostream_ioc.documents.soft_devices import RodDetector, SoftMotor
from tomostream_ioc.documents.transport import CurveKeys, DocumentPublisher
from tomostream_ioc.documents.transport.address import Address
from tomostream_ioc.tracking.rod import CrystalRod

# the first run in a fresh clone compiles for a while
pytestmark = pytest.mark.timeout(300)
DOCUMENTS = ["-m", "tomostream_ioc.documents"]
SHAPE, N_POINTS = (5, 6), 30
SIMULATE = ["simulate", "--shape", "5x6", "--images", "128x128", "--grains", "2", "--rate", "30"]
REFUSED = "this client's CURVE key is refused there"


class Site:
    """A proxy with keys, and one IOC that has `keys` of its own, to be changed between runs."""

    def __init__(self, folder):
        self.into, self.out = free_port(), free_port()
        self.proxy_keys = CurveKeys.create(folder / "proxy").folder
        self.stranger = CurveKeys.create(folder / "stranger").folder
        self.keys = folder / "keys"
        self.keys.mkdir()
        for name in ("server.key", "client.key", "client.key_secret"):
            shutil.copy(self.proxy_keys / name, self.keys)
        with contextlib.ExitStack() as parts:  # those that are there end when another can't start
            self._parts = parts
            self.start_proxy()
            self.ioc = self.start_ioc("--curve-keys", str(self.keys), prefix=("sys:", "Keys:"))
            self._parts = parts.pop_all()

    def start_proxy(self):
        ports = str(self.into), str(self.out)
        options = ["proxy", *ports, "--curve-keys", str(self.proxy_keys)]
        self.proxy = Child([*DOCUMENTS, *options], environment())
        self._parts.callback(self.proxy.close)
        self.proxy.expect("Ready")

    def start_ioc(self, *options, prefix):
        ioc = Ioc(self.keys, *options, prefix=prefix)
        self._parts.callback(ioc.close)
        ioc.expect("Ready", 100)
        ioc.put("Crystal:Source", "Documents", wait=True)
        ioc.put("Crystal:DocsAddress", f"localhost:{self.out}", wait=True)
        return ioc

    def command_sends(self):
        """A scan by the command for it, which has a key."""
        to = ["--to", f"localhost:{self.into}", "--curve-keys", str(self.proxy_keys)]
        sender = Child([*DOCUMENTS, *SIMULATE, *to], environment())
        self._parts.callback(sender.close)
        sender.expect("Sent run")

    @contextlib.contextmanager
    def publisher(self):
        """By which a run engine of this process sends, with a key."""
        address, keys = Address("localhost", self.into), CurveKeys(self.proxy_keys)
        publisher = DocumentPublisher(address, prefix=b"raw", keys=keys)
        try:
            yield publisher
        finally:
            publisher.close()

    def scan_comes(self, ioc):
        rod = CrystalRod(SHAPE, image_shape=(128, 128), n_grains=2)
        slow, fast = motors = [SoftMotor(name) for name in rod.grid.names]
        axes = [
            argument
            for motor, ends, n in zip(motors, rod.grid.extents, SHAPE, strict=True)
            for argument in (motor, *(ends or (0, 0)), n)
        ]
        engine = RunEngine({}, context_managers=[])
        with self.publisher() as publisher:
            assert publisher.wait_for_listener(30)
            engine.subscribe(publisher)
            engine(
                grid_scan([RodDetector(rod, slow, fast, "dexela_image")], *axes, snake_axes=True)
            )
        every_point(ioc)

    def nobody_listens(self):
        """The proxy tells a publisher of no listener, whoever has tried to be one."""
        with self.publisher() as publisher:
            assert not publisher.wait_for_listener(2)
            assert publisher.connected
            assert not publisher.refusal

    def close(self):
        self._parts.close()


def every_point(ioc):
    wait_for(lambda: ioc.get("Crystal:Points") == N_POINTS, 30, "every point")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("curve"))
    yield site
    site.close()


@pytest.fixture
def stopped(site):
    """The IOC that has keys, with no run on."""
    yield site.ioc
    stop(site.ioc)


def stop(ioc):
    ioc.put("Crystal:Abort", 1, wait=True)
    wait_for(lambda: ioc.get("Crystal:Start") == 0, 10)


def starts(ioc):
    ioc.put("Crystal:Start", 1)
    wait_for(lambda: "waiting" in ioc.get("Crystal:Status", True), 100, "the source")


def alarm(ioc):
    """Severity of the record that names the proxy."""
    return ioc.ca.info(f"{ioc.prefix}Crystal:DocsAddress")["severity"]


def lasting(ioc, text):
    """Said in the status once the passing sentence is gone, and in the alarm."""
    wait_for(lambda: text in ioc.get("Crystal:Status", True), 100, text)
    wait_for(lambda: ioc.get("Crystal:Status", True).startswith("Running: no documents"), 20)
    assert text in ioc.get("Crystal:Status", True)
    assert alarm(ioc) == 3


def test_a_scan_comes_with_keys(site, stopped):
    starts(stopped)
    site.command_sends()
    every_point(stopped)
    assert stopped.get("Crystal:FramesMissed") == 0
    assert stopped.get("Crystal:FramesRejected") == 0
    assert alarm(stopped) == 0


def test_a_key_that_the_proxy_does_not_know_is_said_until_it_is_the_right_one(site, stopped):
    for name in ("client.key", "client.key_secret"):
        shutil.copy(site.stranger / name, site.keys)
    try:
        stopped.put("Crystal:Start", 1)
        lasting(stopped, REFUSED)
        site.nobody_listens()
    finally:
        for name in ("client.key", "client.key_secret"):
            shutil.copy(site.proxy_keys / name, site.keys)
    stop(stopped)
    starts(stopped)
    wait_for(lambda: alarm(stopped) == 0, 10)
    site.scan_comes(stopped)


def test_a_key_that_is_gone_ends_the_start_with_the_reason(site, stopped):
    (site.keys / "client.key_secret").unlink()
    try:
        stopped.put("Crystal:Start", 1, wait=True)
        wait_for(lambda: "There is no CURVE key" in stopped.get("Crystal:Status", True), 20)
        assert stopped.get("Crystal:Start") == 0
    finally:
        shutil.copy(site.proxy_keys / "client.key_secret", site.keys)


def test_without_keys_the_status_says_why_nothing_comes(site):
    ioc = site.start_ioc(prefix=("sys:", "None:"))
    ioc.put("Crystal:Start", 1)
    lasting(ioc, "one side uses CURVE keys, the other does not")
    site.nobody_listens()
    assert ioc.close() == 0


def test_a_proxy_that_goes_away_is_said_and_found_again(site, stopped):
    starts(stopped)
    assert site.proxy.close() == 0
    lasting(stopped, "no proxy answers there")
    site.start_proxy()
    wait_for(lambda: "waiting" in stopped.get("Crystal:Status", True), 30, "connected again")
    wait_for(lambda: alarm(stopped) == 0, 10)
    site.scan_comes(stopped)
