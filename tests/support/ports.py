"""Free ports on loopback and the EPICS environment that keeps all traffic there."""

from __future__ import annotations

import itertools
import os
import random
import socket
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"


def _span() -> tuple[int, int]:
    """Ports of this test process: below those that the kernel gives to connections, and other ones
    for each worker of a parallel run, as a port that was found free is used only seconds later."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 12_000 + worker % 4 * _SPAN, _SPAN


_SPAN = 5_000
#: begins anywhere, as the tests of another checkout may run beside these
_steps = itertools.count(random.SystemRandom().randrange(_SPAN))


def free_port() -> int:
    """A port that is free for TCP and UDP alike; not given again for thousands of calls."""
    first, n = _span()
    for _ in range(n):
        port = first + next(_steps) % n
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            try:
                tcp.bind((LOOPBACK, port))
                udp.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port from {first} to {first + n - 1} is free")


@dataclass(frozen=True)
class ServerPorts:
    """Where one process serves CA and PVA."""

    ca: int = field(default_factory=free_port)
    pva: int = field(default_factory=free_port)
    pva_search: int = field(default_factory=free_port)


def environment(
    serve: ServerPorts | None = None, reach: tuple[ServerPorts, ...] = ()
) -> dict[str, str]:
    """Environment of a process that serves on ``serve`` and finds what ``reach`` serves."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    kept |= {
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_ADDR_LIST": " ".join(f"{LOOPBACK}:{peer.ca}" for peer in reach) or LOOPBACK,
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_ADDR_LIST": " ".join(f"{LOOPBACK}:{peer.pva_search}" for peer in reach)
        or LOOPBACK,
        "EPICS_CAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_CA_MAX_ARRAY_BYTES": "100000000",
        "PYTHONUNBUFFERED": "1",
    }
    serve = serve or ServerPorts()
    kept |= {
        "EPICS_CA_SERVER_PORT": str(serve.ca),
        "EPICS_CAS_SERVER_PORT": str(serve.ca),
        "EPICS_PVAS_SERVER_PORT": str(serve.pva),
        "EPICS_PVAS_BROADCAST_PORT": str(serve.pva_search),
        "EPICS_PVA_SERVER_PORT": str(serve.pva),
        # libca registers with a repeater; a port of its own keeps it from waiting for another's
        "EPICS_CA_REPEATER_PORT": str(free_port()),
    }
    return kept
