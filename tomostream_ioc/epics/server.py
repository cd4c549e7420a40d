"""caproto's CA server, with puts that end, fail and are ordered as a C IOC does them.

What a client may do is judged by the address of its connection and the user name that it gives
before its first channel; the host name that it claims is not listened to. No text of a Python
exception reaches a client: the log has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

import caproto as ca
from caproto._dbr import _LongStringChannelType
from caproto.asyncio.server import Context, VirtualCircuit
from caproto.server.common import DisconnectedCircuit, LoopExit

from tomostream_ioc.epics.access import plain_address
from tomostream_ioc.epics.channel import Wire
from tomostream_ioc.epics.put_log import PutLog
from tomostream_ioc.epics.record import Field
from tomostream_ioc.epics.wire import PutError
from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)

_READS = (ca.ReadNotifyRequest, ca.ReadRequest, ca.EventAddRequest)
_FIRST_BEACON_PERIOD_S = 0.02
_LONG_STRINGS = {int(kind): kind for kind in _LongStringChannelType}


class IocCircuit(VirtualCircuit):
    """One client. Puts are done in the order in which they came, before its next request."""

    context: IocContext  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, circuit, client, context):
        super().__init__(circuit, client, context)
        # caproto hands it to each check of access
        self.client_hostname = plain_address(circuit.address[0])
        self.client_username = ""
        self._told: dict[int, ca.AccessRights] = {}  # channel's cid -> what its client knows

    async def _process_command(self, command):
        try:
            return await self._answer(command)
        except (DisconnectedCircuit, LoopExit):
            raise
        except Exception as error:
            if isinstance(command, ca.CreateChanRequest):
                log.exception("%s: no channel for %s", command.name, self._who)
                return [ca.CreateChFailResponse(cid=command.cid)]
            if not hasattr(command, "sid"):
                log.exception("what %s sent could not be worked on", self._who)
                return []
            channel, _ = self._get_db_entry_from_command(command)
            if isinstance(error, ca.RemoteProtocolError):
                status, reason = ca.CAStatus.ECA_BADTYPE, "not a type to ask for"
                log.info("%s: %s asked for no type: %s", channel.name, self._who, error)
            else:
                status, reason = ca.CAStatus.ECA_INTERNAL, "internal error"
                log.exception("%s: what %s asked failed", channel.name, self._who)
            return [_refusal(command, channel, status, reason)]

    @property
    def _who(self) -> str:
        return f"{self.client_username!r} at {self.client_hostname}"

    async def _answer(self, command):
        if isinstance(command, ca.HostNameRequest):
            return []
        if isinstance(command, ca.ClientNameRequest) and self.circuit.channels:
            # what its channels may do has been told
            log.info("%s can't be %r from now on", self._who, command.name)
            return []
        if isinstance(command, (ca.WriteRequest, ca.WriteNotifyRequest)):
            channel, entry = self._get_db_entry_from_command(command)
            if isinstance(entry, Wire):
                return await self._write(command, channel, entry)
        if isinstance(command, _READS):
            return await self._read(command)
        responses = await super()._process_command(command)
        if isinstance(command, ca.CreateChanRequest):
            self._told |= {
                answer.cid: answer.access_rights
                for answer in responses
                if isinstance(answer, ca.AccessRightsResponse)
            }
        elif isinstance(command, ca.ClearChannelRequest):
            self._told.pop(command.cid, None)
        return responses

    async def _read(self, command) -> list:
        channel, entry = self._get_db_entry_from_command(command)
        may_read = self.may_read(entry)
        if not may_read and not isinstance(command, ca.EventAddRequest):
            return [_refusal(command, channel, ca.CAStatus.ECA_NORDACCESS, "no read access")]
        try:
            if (
                isinstance(command, ca.ReadNotifyRequest)
                and command.data_count > 1
                and isinstance(entry, Wire)
            ):
                return await self._read_array(command, channel, entry)
            responses = await super()._process_command(command)
        except ca.RemoteProtocolError:
            raise
        except (ca.CaprotoError, ValueError, OverflowError) as error:
            log.info("%s can't be read as %r: %s", channel.name, command.data_type, error)
            reason = "not to be read as this type"
            return [_refusal(command, channel, ca.CAStatus.ECA_GETFAIL, reason)]
        if not may_read:
            # the monitor is there, silent until its client may read
            return [_refusal(command, channel, ca.CAStatus.ECA_NORDACCESS, "no read access")]
        return responses

    def may_read(self, entry) -> bool:
        rights = entry.check_access(self.client_hostname, self.client_username)
        return ca.AccessRights.READ in rights

    async def tell_rights(self) -> None:
        """Send the rights that have changed; monitors that may speak again begin anew."""
        for channel in list(self.circuit.channels.values()):
            before = self._told.get(channel.cid)
            if before is None:
                continue  # it is just being made
            entry = self.context[channel.name]
            rights = entry.check_access(self.client_hostname, self.client_username)
            if rights == before:
                continue
            self._told[channel.cid] = rights
            await self.send(ca.AccessRightsResponse(cid=channel.cid, access_rights=rights))
            if ca.AccessRights.READ in rights & ~before:
                await self._post_again(channel)

    async def _post_again(self, channel) -> None:
        mine = [
            (spec, subscription)
            for spec, subscriptions in self.subscriptions.items()
            for subscription in subscriptions
            if subscription.channel is channel
        ]
        for spec, subscription in mine:
            await spec.db_entry.subscribe(self.context.subscription_queue, spec, subscription)

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
        address, user = self.client_hostname, self.client_username
        put_log = self.context.put_log
        try:
            trapped = entry.grant(address, user).trapped
            done = await entry.authorised_put(
                address, user, command.data, command.data_type, command.metadata
            )
            if trapped:
                put_log.trapped(channel.name, command.data, address, user)
            if isinstance(entry, Field) and entry.spec.name == "ASG":
                self.context.tell_rights()
        except PutError as refusal:
            status, reason = refusal.status, str(refusal)
            if status is ca.CAStatus.ECA_NOWTACCESS:
                put_log.denied(channel.name, command.data, address, user, reason)
            else:
                put_log.refused(channel.name, command.data, address, user, reason)
        except Exception:
            status, reason = ca.CAStatus.ECA_PUTFAIL, "internal error"
            log.exception("put to %s by %s failed", channel.name, self._who)
        if not notify:
            if status is ca.CAStatus.ECA_NORMAL:
                return []
            return [_refusal(command, channel, status, reason)]
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
        self.put_log = PutLog()

    def tell_rights(self) -> None:
        """Tell each client what it may do from now on, where that has changed."""
        for circuit in self.circuits:
            circuit.tasks.create(_unless_gone(circuit.tell_rights()))

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
        circuit = sub.circuit
        if isinstance(circuit, IocCircuit) and not circuit.may_read(sub_spec.db_entry):
            return
        # a monitor that asked for a number of elements gets as many, as from a C IOC: MEDM
        # reads a shorter answer past its end
        if sub.data_count > len(values) and isinstance(sub_spec.db_entry, Wire):
            values = _padded(values, sub.data_count, sub.data_type)
        await super()._subscription_queue_send(sub_spec, sub, metadata, values, flags)


async def _unless_gone(telling: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(DisconnectedCircuit):
        await telling


def _refusal(command, channel, status: ca.CAStatus, reason: str) -> ca.ErrorResponse:
    return ca.ErrorResponse(command, channel.cid, status, f"{channel.name}: {reason}")


def _padded(values, count: int, data_type):
    empty = b"" if ca.native_type(ca.ChannelType(data_type)) == ca.ChannelType.STRING else 0
    return [*values, *[empty] * (count - len(values))]
