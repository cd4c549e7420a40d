"""Peak tracking of documents that only clients with a key may send and read: real processes."""

import shutil

import pytest
from support.ports import environment, free_port
from support.processes import Child, Ioc, wait_for

from tomostream_ioc.documents.transport import CurveKeys

# the first run in a fresh clone compiles for a while
pytestmark = pytest.mark.timeout(300)
DOCUMENTS = ["-m", "tomostream_ioc.documents"]
N_POINTS = 30
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
        self.children: list[Child] = []
        self.proxy = self.start_proxy()
        self.ioc = self.start_ioc("--curve-keys", str(self.keys), prefix=("sys:", "Keys:"))

    def start_proxy(self):
        ports = str(self.into), str(self.out)
        options = ["proxy", *ports, "--curve-keys", str(self.proxy_keys)]
        proxy = Child([*DOCUMENTS, *options], environment())
        self.children.append(proxy)
        proxy.expect("Ready")
        return proxy

    def start_ioc(self, *options, prefix):
        ioc = Ioc(self.keys, *options, prefix=prefix)
        self.children.append(ioc)
        ioc.expect("Ready", 100)
        ioc.put("Crystal:Source", "Documents", wait=True)
        ioc.put("Crystal:DocsAddress", f"localhost:{self.out}", wait=True)
        return ioc

    def scan(self, *options):
        """By a run engine that has a key; the process."""
        to = ["--to", f"localhost:{self.into}", "--curve-keys", str(self.proxy_keys)]
        sender = Child([*DOCUMENTS, *SIMULATE, *to, *options], environment())
        self.children.append(sender)
        return sender

    def scan_comes(self, ioc):
        self.scan().expect("Sent run")
        wait_for(lambda: ioc.get("Crystal:Points") == N_POINTS, 30, "every point")

    def nobody_listens(self):
        """The proxy tells a publisher of no listener, whoever has tried to be one."""
        sender = self.scan("--wait", "2")
        assert sender.wait(60) == 1
        assert "nobody listens" in sender.output


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("curve"))
    yield site
    for child in site.children:
        child.close()


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
    site.scan_comes(stopped)
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
