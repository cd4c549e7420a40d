"""caproto's CA server, with puts that end, fail and are ordered as a C IOC does them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import caproto as ca
from caproto._dbr import _LongStringChannelType
from caproto.asyncio.server import Context, VirtualCircuit
from caproto.server.common import DisconnectedCircuit

from tomostream_ioc.epics.channel import Wire
from tomostream_ioc.epics.wire import PutError
from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)

_READS = (ca.ReadNotifyRequest, ca.ReadRequest, ca.EventAddRequest)
_FIRST_BEACON_PERIOD_S = 0.02
_LONG_STRINGS = {int(kind): kind for kind in _LongStringChannelType}


class IocCircuit(VirtualCircuit):
    """One client. Puts are done in the order in which they came, before its next request."""

    async def _process_command(self, command):
        if isinstance(command, (ca.WriteRequest, ca.WriteNotifyRequest)):
            channel, entry = self._get_db_entry_from_command(command)
            if isinstance(entry, Wire):
                return await self._write(command, channel, entry)
        if isinstance(command, ca.ReadNotifyRequest) and command.data_count > 1:
            channel, entry = self._get_db_entry_from_command(command)
            if isinstance(entry, Wire):
                return await self._read_array(command, channel, entry)
        try:
            return await super()._process_command(command)
        except ca.RemoteProtocolError:
            raise
        except (ca.CaprotoError, ValueError, OverflowError) as error:
            if not isinstance(command, _READS):
                raise
            channel, _ = self._get_db_entry_from_command(command)
            log.info("%s can't be read as %r: %s", channel.name, command.data_type, error)
            reason = f"{channel.name}: not to be read as this type"
            return [ca.ErrorResponse(command, channel.cid, ca.CAStatus.ECA_GETFAIL, reason)]

    async def _read_array(self, command, channel, entry: Wire) -> list:
        """A read of a number of elements: filled up with zeros to that number, as in C."""
        data_type = command.data_type
        if channel.name.endswith("$") and data_type in _LONG_STRINGS:
            data_type = _LONG_STRINGS[data_type]
        metadata, data = await entry.auth_read(
            self.client_hostname, self.client_username, data_type
        )
        count = min(command.data_count, max(entry.max_length or 1, len(data)))
        return [
            channel.read(
                data=_padded(data, count, command.data_type)[:count],
                data_type=command.data_type,
                data_count=count,
                ioid=command.ioid,
                metadata=metadata,
            )
        ]

    async def _write(self, command, channel, entry: Wire) -> list:
        notify = isinstance(command, ca.WriteNotifyRequest)
        done, status, reason = None, ca.CAStatus.ECA_NORMAL, ""
        try:
            done = await entry.authorised_put(
                self.client_hostname,
                self.client_username,
                command.data,
                command.data_type,
                command.metadata,
            )
        except PutError as refusal:
            status, reason = refusal.status, str(refusal)
            log.info("put to %s by %s refused: %s", channel.name, self.circuit.address, reason)
        except Exception:
            status, reason = ca.CAStatus.ECA_PUTFAIL, "internal error"
            log.exception("put to %s by %s failed", channel.name, self.circuit.address)
        if not notify:
            if status is ca.CAStatus.ECA_NORMAL:
                return []
            return [ca.ErrorResponse(command, channel.cid, status, f"{channel.name}: {reason}")]
        response = channel.write(ioid=command.ioid, data_count=entry.length, status=status)
        if done is None or done.done():
            return [response]
        self.tasks.create(self._complete(done, response))
        return []

    async def _complete(self, done: asyncio.Future[None], response) -> None:
        """Answer a put-callback when the work behind it has ended."""
        try:
            await asyncio.shield(done)
            await self.send(response)
        except DisconnectedCircuit:
            pass  # the client has gone; the work goes on without it


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

    async def _bind_tcp_sockets_with_consistent_port_number(self, make_socket):
        if not self._strict_port:
            return await super()._bind_tcp_sockets_with_consistent_port_number(make_socket)
        sockets = {}
        try:
            for interface in self.interfaces:
                sockets[interface] = await make_socket(interface, self.ca_server_port)
        except OSError as error:
            for socket in sockets.values():
                socket.close()
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

    async def _subscription_queue_send(self, sub_spec, sub, metadata, values, flags):
        # a monitor that asked for a number of elements gets as many, as from a C IOC: MEDM
        # reads a shorter answer past its end
        if sub.data_count > len(values) and isinstance(sub_spec.db_entry, Wire):
            values = _padded(values, sub.data_count, sub.data_type)
        await super()._subscription_queue_send(sub_spec, sub, metadata, values, flags)


def _padded(values, count: int, data_type):
    empty = b"" if ca.native_type(ca.ChannelType(data_type)) == ca.ChannelType.STRING else 0
    return [*values, *[empty] * (count - len(values))]
