"""The guard of the PVA server, with a server of its own; tests/faults has it in the whole IOC."""

from __future__ import annotations

import socket
import struct

from p4p.server import Server, StaticProvider

from tests.support.ports import free_port
from tests.support.processes import wait_for
from tomostream_ioc.epics.pva_guard import PvaGuard

_MB = 1_000_000
#: begins a message of 1 GB: magic, version, little-endian from a client, echo, length
_ENDLESS = struct.pack("<BBBBI", 0xCA, 2, 0, 2, 1000 * _MB)


def test_each_interface_may_have_a_port_of_its_own() -> None:
    first, second, broadcast = (free_port() for _ in range(3))
    conf = {
        "EPICS_PVAS_INTF_ADDR_LIST": f"127.0.0.1:{first} 127.0.0.2:{second}",
        "EPICS_PVAS_SERVER_PORT": str(first),
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_BROADCAST_PORT": str(broadcast),
    }
    server = Server(providers=[StaticProvider("nothing")], conf=conf, useenv=False)
    guard = PvaGuard(server)
    try:
        for n, address in enumerate((("127.0.0.1", first), ("127.0.0.2", second)), start=1):
            with socket.create_connection(address, timeout=60) as client:
                assert _is_ended(client)
            wait_for(
                lambda count=n: guard.closed == count
            )  # the client notices before it is counted
    finally:
        guard.close()
        server.stop()


def _is_ended(client: socket.socket) -> bool:
    """Whether the other side ends the connection, which has brought megabytes of one message."""
    try:
        client.sendall(_ENDLESS + bytes(8 * _MB))
        while client.recv(1000):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True
