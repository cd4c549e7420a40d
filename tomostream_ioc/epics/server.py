"""caproto's CA server as this product wants it: ports, beacons, searches, clients that must go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import caproto as ca
from caproto.asyncio.server import Context
from caproto.asyncio.utils import _create_udp_socket
from caproto.server.common import DisconnectedCircuit

from tomostream_ioc.epics.ca_messages import max_message_bytes
from tomostream_ioc.epics.channel_filter import split_filter
from tomostream_ioc.epics.ioc_circuit import IocCircuit
from tomostream_ioc.epics.limited_log import LimitedLog
from tomostream_ioc.epics.monitors import Monitors
from tomostream_ioc.epics.put_log import PutLog
from tomostream_ioc.epics.searches import SearchResponder
from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)

_FIRST_BEACON_PERIOD_S = 0.02


@dataclass(frozen=True, slots=True)
class ClientCounts:
    """What iocStats counts of clients, and how many had to be disconnected since the start."""

    clients: int = 0
    channels: int = 0
    bad: int = 0


class IocContext(Context):
    """The CA server of this product.

    ``port`` is for UDP and TCP; without, EPICS_CA_SERVER_PORT holds. With ``strict_port`` a TCP
    port in use is a ConfigError; without, caproto looks for another.
    """

    CircuitClass = IocCircuit

    def __init__(self, pvdb, interfaces=None, *, port: int | None = None, strict_port: bool = True):
        super().__init__(pvdb, interfaces)
        if port is not None:
            self.ca_server_port: Any = port
        self._strict_port = strict_port
        self.put_log = PutLog()
        self.log_lines = LimitedLog(log)
        self.message_limit = max_message_bytes()
        self._bad_clients = 0
        #: in place of caproto's queue
        self.monitors = Monitors(
            self.subscriptions, super()._subscription_queue_send, self.log_lines
        )
        self.subscription_queue: Any = self.monitors

    def counts(self) -> ClientCounts:
        channels = sum(len(circuit.circuit.channels) for circuit in self.circuits)
        return ClientCounts(len(self.circuits), channels, self._bad_clients)

    def count_bad_client(self) -> None:
        """One more was disconnected because it broke the protocol."""
        self._bad_clients += 1

    async def tcp_handler(self, client, addr):
        """Serve one client until it goes, or has to."""
        if addr is None:
            client.close()  # it has gone already
            return
        circuit = self.CircuitClass(ca.VirtualCircuit(ca.SERVER, addr, None), client, self)
        self.circuits.add(circuit)
        try:
            await circuit.run()
            while True:
                await circuit.recv()
        except DisconnectedCircuit:
            pass
        except Exception:
            cause = f"connection {circuit.client_hostname}"
            text = "the connection of %s is closed after an error"
            self.log_lines.exception(cause, text, circuit.who)
        finally:
            await circuit.close()
            await self.circuit_disconnected(circuit)

    async def _create_broadcaster_transport(self, interface):
        sock = _create_udp_socket()
        sock.bind((interface, self.ca_server_port))
        self.udp_socks[interface], _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: SearchResponder(
                self._is_served, self.pvdb, lambda: int(self.port or 0), self.ignore_addresses
            ),
            sock=sock,
        )

    def _is_served(self, name: str) -> bool:
        # whether the filter behind it is one shows when the channel is made, as with a C IOC
        with contextlib.suppress(KeyError, ValueError):
            return self[split_filter(name)[0]] is not None
        return False

    async def subscription_queue_loop(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Nothing is left to do for caproto's task: monitors get values as these are posted."""

    def tell_rights(self) -> None:
        """Tell each client what it may do from now on, where that has changed."""
        for circuit in self.circuits:
            circuit.tasks.create(_unless_gone(circuit.tell_rights()))

    async def _bind_tcp_sockets_with_consistent_port_number(self, make_socket):
        port, sockets = await self._bind(make_socket)
        for sock in sockets.values():
            # connections take it over; asyncio sees no TCP in a socket made with protocol 0, and
            # with Nagle's algorithm an answer after a monitor's update comes 40 ms late
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return port, sockets

    async def _bind(self, make_socket):
        if not self._strict_port:
            return await super()._bind_tcp_sockets_with_consistent_port_number(make_socket)
        sockets = {}
        try:
            for interface in self.interfaces:
                sockets[interface] = await make_socket(interface, self.ca_server_port)
        except OSError as error:
            for sock in sockets.values():
                sock.close()
            raise ConfigError(
                f"CA port {self.ca_server_port} of {', '.join(self.interfaces)} can't be used "
                f"({error.strerror or error}): another IOC may have it; set EPICS_CA_SERVER_PORT"
            ) from error
        return self.ca_server_port, sockets

    async def broadcast_beacon_loop(self):
        """Beacons at the periods that the CA specification wants, silent where nobody listens."""
        period_s = _FIRST_BEACON_PERIOD_S
        while True:
            for interface, sock in self.beacon_socks.values():
                beacon = ca.Beacon(13, self.port, self.beacon_count, interface)
                # no repeater there, or the network is down: the next beacon may get through
                with contextlib.suppress(OSError, ca.CaprotoNetworkError):
                    await sock.send(self.broadcaster.send(beacon))
            self.beacon_count += 1
            await asyncio.sleep(period_s)
            period_s = min(2 * period_s, float(self.environ["EPICS_CAS_BEACON_PERIOD"]))


async def _unless_gone(telling: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(DisconnectedCircuit):
        await telling
