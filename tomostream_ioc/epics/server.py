"""caproto's CA server, with puts that end, fail and are ordered as a C IOC does them.

What a client may do is judged by the address of its connection and the user name that it gives
before its first channel; the host name that it claims is not listened to. No text of a Python
exception reaches a client: the log has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import caproto as ca
from caproto._dbr import _LongStringChannelType
from caproto.asyncio.server import Context
from caproto.asyncio.utils import _create_udp_socket
from caproto.server.common import DisconnectedCircuit

from tomostream_ioc.epics.bounded_circuit import BoundedCircuit
from tomostream_ioc.epics.ca_messages import BadMessageError, max_message_bytes
from tomostream_ioc.epics.channel import Wire
from tomostream_ioc.epics.limited_log import LimitedLog
from tomostream_ioc.epics.put_log import PutLog
from tomostream_ioc.epics.record import Field
from tomostream_ioc.epics.searches import SearchResponder
from tomostream_ioc.epics.wire import PutError
from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)

_READS = (ca.ReadNotifyRequest, ca.ReadRequest, ca.EventAddRequest)
_FIRST_BEACON_PERIOD_S = 0.02
_MOST_WAITING_PUTS = 1000  # put-callbacks of one client
_MOST_POSTINGS = 8  # that wait to be handed to the monitors before puts wait
_AT_ONCE = 50  # monitors that are served before somebody else's turn
_LONG_STRINGS = {int(kind): kind for kind in _LongStringChannelType}


class IocCircuit(BoundedCircuit):
    """One client. Puts are done in the order in which they came, before its next request."""

    context: IocContext  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, circuit, client, context):
        super().__init__(
            circuit,
            client,
            context,
            message_limit=context.message_limit,
            log_lines=context.log_lines,
        )
        self._waiting_puts = 0
        self._told: dict[int, ca.AccessRights] = {}  # channel's cid -> what its client knows

    async def _process_command(self, command):
        try:
            return await self._answer(command)
        except DisconnectedCircuit:
            raise
        except Exception as error:
            if isinstance(command, ca.CreateChanRequest):
                self.context.log_lines.exception(
                    f"no channel {self.client_hostname}",
                    "%s: no channel for %s",
                    command.name,
                    self.who,
                )
                return [ca.CreateChFailResponse(cid=command.cid)]
            if not hasattr(command, "sid"):
                self.context.log_lines.exception(
                    f"request {self.client_hostname}",
                    "what %s sent could not be worked on",
                    self.who,
                )
                return []
            try:
                channel, _ = self._get_db_entry_from_command(command)
            except KeyError:
                raise BadMessageError(f"{type(command).__name__} for an unknown id") from error
            if isinstance(error, ca.RemoteProtocolError):
                status, reason = ca.CAStatus.ECA_BADTYPE, "not a type to ask for"
                log.info("%s: %s asked for no type: %s", channel.name, self.who, error)
            else:
                status, reason = ca.CAStatus.ECA_INTERNAL, "internal error"
                self.context.log_lines.exception(
                    f"failed {self.client_hostname}",
                    "%s: what %s asked failed",
                    channel.name,
                    self.who,
                )
            return [_refusal(command, channel, status, reason)]

    async def _answer(self, command):
        if isinstance(command, ca.HostNameRequest):
            return []
        if isinstance(command, ca.ClientNameRequest) and self.circuit.channels:
            # what its channels may do has been told
            log.info("%s can't be %r from now on", self.who, command.name)
            return []
        if isinstance(command, (ca.WriteRequest, ca.WriteNotifyRequest)):
            channel, entry = self._get_db_entry_from_command(command)
            if isinstance(entry, Wire):
                responses = await self._write(command, channel, entry)
                await self.context.room_for_updates()
                return responses
        if isinstance(command, ca.EventAddRequest):
            channel, _ = self._get_db_entry_from_command(command)
            if command.data_count > max(channel.native_data_count or 1, 1):
                # filled up to what was asked for, this would be up to 4 GB of zeros
                reason = "has fewer elements than that"
                return [_refusal(command, channel, ca.CAStatus.ECA_BADCOUNT, reason)]
        if isinstance(command, _READS):
            return await self._read(command)
        if isinstance(command, ca.EventsOffRequest):
            self.hold_updates()
        if isinstance(command, ca.ClearChannelRequest):
            channel, entry = self._get_db_entry_from_command(command)
            await self._cull_subscriptions(entry, lambda each: each.channel is channel)
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
            if _is_plain(command, channel, entry):
                return await self._read_notify(command, channel, entry)
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

    async def _read_notify(self, command, channel, entry: Wire) -> list:
        """A read; of a number of elements filled up with zeros to that number, as in C.

        caproto's own waits for a put to end, with a task and a timer for each read. Here each put
        has ended by then, as requests are worked on in turn.
        """
        data_type = command.data_type
        if channel.name.endswith("$") and data_type in _LONG_STRINGS:
            data_type = _LONG_STRINGS[data_type]
        metadata, data = await entry.auth_read(
            self.client_hostname, self.client_username, data_type
        )
        count = entry.calculate_length(data)  # 0 asks for all there are
        if command.data_count:
            count = min(command.data_count, max(entry.max_length or 1, count))
            data = _padded(data, count, command.data_type)[:count]
        return [
            channel.read(
                data=data,
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
            self.context.log_lines.exception(
                f"put {self.client_hostname}", "put to %s by %s failed", channel.name, self.who
            )
        if not notify:
            if status is ca.CAStatus.ECA_NORMAL:
                return []
            return [_refusal(command, channel, status, reason)]
        response = channel.write(ioid=command.ioid, data_count=entry.length, status=status)
        if done is None or done.done():
            return [response]
        if self._waiting_puts >= _MOST_WAITING_PUTS:
            response = channel.write(
                ioid=command.ioid, data_count=entry.length, status=ca.CAStatus.ECA_PUTCBINPROG
            )
            return [response]
        self._waiting_puts += 1
        self.tasks.create(self._complete(done, response))
        return []

    async def _complete(self, done: asyncio.Future[None], response) -> None:
        """Answer a put-callback when the work behind it has ended."""
        try:
            await asyncio.shield(done)
            await self.send(response)
        except DisconnectedCircuit:
            pass  # the client has gone; the work goes on without it
        finally:
            self._waiting_puts -= 1


@dataclass(frozen=True, slots=True)
class ClientCounts:
    """What iocStats counts of CA clients, and how many had to be disconnected since the start."""

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
        self._room = asyncio.Event()

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
        try:
            return self[name] is not None
        except (KeyError, ValueError, RecursionError):  # of names, and of filters behind them
            return False

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

    async def room_for_updates(self) -> None:
        """Hold up who puts faster than all monitors of all clients can be given the values."""
        if self.subscription_queue.qsize() > _MOST_POSTINGS:
            self._room.clear()
            await self._room.wait()

    async def _subscription_queue_iteration(self, sub_specs, metadata, values, flags, sub):
        sent = 0
        for spec in sub_specs:
            to = [sub] if sub is not None else list(self.subscriptions.get(spec, ()))
            for subscription in to:
                try:
                    await self._subscription_queue_send(spec, subscription, metadata, values, flags)
                except Exception:  # all monitors of all clients are served by this one loop
                    name = subscription.channel.name
                    text = "%s could not be sent to a monitor"
                    self.log_lines.exception(f"monitor {name}", text, name)
                sent += 1
                if sent % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        if self.subscription_queue.qsize() <= _MOST_POSTINGS:
            self._room.set()

    async def _subscription_queue_send(self, sub_spec, sub, metadata, values, flags):
        circuit = sub.circuit
        if not circuit.connected or sub not in circuit.subscriptions.get(sub_spec, ()):
            return  # cancelled in the meantime
        if isinstance(circuit, IocCircuit) and not circuit.may_read(sub_spec.db_entry):
            return
        # a monitor that asked for a number of elements gets as many, as from a C IOC: MEDM
        # reads a shorter answer past its end
        if sub.data_count > len(values) and isinstance(sub_spec.db_entry, Wire):
            values = _padded(values, sub.data_count, sub.data_type)
        await super()._subscription_queue_send(sub_spec, sub, metadata, values, flags)
        circuit.unexpired_updates.clear()  # the circuit's own queue has it


async def _unless_gone(telling: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(DisconnectedCircuit):
        await telling


def _is_plain(command, channel, entry) -> bool:
    """A read of a value of our records, by a name that asks for no filter of it."""
    wanted = channel.channel_filter
    return (
        isinstance(command, ca.ReadNotifyRequest)
        and isinstance(entry, Wire)
        and command.header.data_type < ca.ChannelType.PUT_ACKT  # what follows are no values
        and wanted.arr is None
        and not wanted.ts
    )


def _refusal(command, channel, status: ca.CAStatus, reason: str) -> ca.ErrorResponse:
    return ca.ErrorResponse(command, channel.cid, status, f"{channel.name}: {reason}")


def _padded(values, count: int, data_type):
    if len(values) >= count:
        return values
    empty = b"" if ca.native_type(ca.ChannelType(data_type)) == ca.ChannelType.STRING else 0
    return [*values, *[empty] * (count - len(values))]
