"""One client of this IOC: puts that end, fail and are ordered as a C IOC does them.

What a client may do is judged by the address of its connection and the user name that it gives
before its first channel; the host name that it claims is not listened to. No text of a Python
exception reaches a client: the log has it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import caproto as ca
from caproto._dbr import _LongStringChannelType
from caproto.server.common import DisconnectedCircuit

from tomostream_ioc.epics.bounded_circuit import BoundedCircuit
from tomostream_ioc.epics.ca_messages import BadMessageError, Message
from tomostream_ioc.epics.channel import Wire
from tomostream_ioc.epics.channel_filter import NO_FILTER, parse_filter, split_filter
from tomostream_ioc.epics.direct_messages import (
    READ_NOTIFY,
    WRITE,
    WRITE_NOTIFY,
    direct_put,
    put_answer,
    read_answer,
)
from tomostream_ioc.epics.field import Field
from tomostream_ioc.epics.monitors import padded
from tomostream_ioc.epics.wire import PutError

if TYPE_CHECKING:
    from tomostream_ioc.epics.server import IocContext

log = logging.getLogger(__name__)

_READS = (ca.ReadNotifyRequest, ca.ReadRequest, ca.EventAddRequest)
_DIRECT = (READ_NOTIFY, WRITE_NOTIFY, WRITE)
_MOST_WAITING_PUTS = 1000  # put-callbacks of one client
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

    def _turn_is_over(self) -> bool:
        return self.context.monitors.turn_is_over() or super()._turn_is_over()

    async def _answer_directly(self, message: Message) -> bool:
        if message.command not in _DIRECT:
            return False
        channel = self.circuit.channels_sid.get(message.first)
        if channel is None or channel.channel_filter != NO_FILTER:
            return False
        # a name that asks for a long string is none of the database
        entry = self.context.pvdb.get(channel.name)
        if not isinstance(entry, Wire):
            return False
        if message.command != READ_NOTIFY:
            put = direct_put(message)
            if put is None:
                return False
            await self._put(put, put.notify, channel, entry)
            return True
        if not entry.may_read(self.client_hostname, self.client_username):
            return False
        try:
            answer = read_answer(message, entry)
        except Exception:
            self.context.log_lines.exception(*self._failure_of(channel))
            return False  # caproto's way may do, or says that it does not
        if answer is not None:
            self.answer(answer)
        return answer is not None

    async def _handle(self, command):
        if not isinstance(command, ca.CreateChanRequest):
            await super()._handle(command)
            return
        name, text = split_filter(command.name)
        if not text:
            await super()._handle(command)
            return
        try:
            wanted = parse_filter(text)
        except (ValueError, TypeError, OverflowError, RecursionError, ca.CaprotoError) as error:
            self.context.log_lines.say(
                f"no channel {self.client_hostname}",
                "no channel %s for %s: %s",
                command.name[:100],
                self.who,
                str(error)[:100],
                level=logging.INFO,
            )
            self.answer(bytes(ca.CreateChFailResponse(cid=command.cid)))
            return
        await super()._handle(
            ca.CreateChanRequest(name, command.cid, self.circuit.protocol_version)
        )
        channel = self.circuit.channels.get(command.cid)
        if channel is not None:
            is_array = (channel.native_data_count or 1) > 1
            # there are no slices but of arrays, and deadbands but of numbers
            channel.channel_filter = wanted._replace(**{"dbnd" if is_array else "arr": None})

    def _failure_of(self, channel) -> tuple[str, str, str, str]:
        """For the log: cause and text."""
        cause = f"failed {self.client_hostname}"
        return cause, "%s: what %s asked failed", channel.name, self.who

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
                self.context.log_lines.exception(*self._failure_of(channel))
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
                notify = isinstance(command, ca.WriteNotifyRequest)
                if notify:  # caproto keeps it until it sends the answer itself
                    self.circuit._ioids.pop(command.ioid, None)
                await self._put(command, notify, channel, entry)
                return []
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
        may_read = entry.may_read(self.client_hostname, self.client_username)
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
            data = padded(data, count, command.data_type)[:count]
        return [
            channel.read(
                data=data,
                data_type=command.data_type,
                data_count=count,
                ioid=command.ioid,
                metadata=metadata,
            )
        ]

    # --- puts -----------------------------------------------------------------------------

    async def _put(self, put: Any, notify: bool, channel, entry: Wire) -> None:
        """Do a put, of caproto's or a DirectPut, and answer it, at once or when it has ended."""
        done, status, reason = None, ca.CAStatus.ECA_NORMAL, ""
        address, user = self.client_hostname, self.client_username
        put_log = self.context.put_log
        try:
            trapped = entry.grant(address, user).trapped
            done = await entry.authorised_put(address, user, put.data, put.data_type, put.metadata)
            if trapped:
                put_log.trapped(channel.name, put.data, address, user)
            if isinstance(entry, Field) and entry.spec.name == "ASG":
                self.context.tell_rights()
        except PutError as refusal:
            status, reason = refusal.status, str(refusal)
            if status is ca.CAStatus.ECA_NOWTACCESS:
                put_log.denied(channel.name, put.data, address, user, reason)
            else:
                put_log.refused(channel.name, put.data, address, user, reason)
        except Exception:
            status, reason = ca.CAStatus.ECA_PUTFAIL, "internal error"
            self.context.log_lines.exception(
                f"put {self.client_hostname}", "put to %s by %s failed", channel.name, self.who
            )
        if not notify:
            if status is not ca.CAStatus.ECA_NORMAL:
                self.answer(bytes(_refusal(put, channel, status, reason)))
            return
        waits = done is not None and not done.done()
        if waits and self._waiting_puts >= _MOST_WAITING_PUTS:
            waits, status = False, ca.CAStatus.ECA_PUTCBINPROG
        answer = put_answer(channel.native_data_type, entry.length, status, put.ioid)
        if not waits or done is None:
            self.answer(answer)
            return
        self._waiting_puts += 1
        self.tasks.create(self._complete(done, channel, answer))

    async def _complete(self, done: asyncio.Future[None], channel, answer: bytes) -> None:
        """Answer a put-callback when the work behind it has ended."""
        try:
            await asyncio.shield(done)
            if self.circuit.channels_sid.get(channel.sid) is channel:
                self.answer(answer)
                self.flush()
        finally:
            self._waiting_puts -= 1


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
