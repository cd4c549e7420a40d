"""One CA client's connection, that costs a bounded amount whatever the client does.

caproto 1.3.0 believes a length field (4 GB is collected in memory), leaves a connection open but
dead after an unknown channel id, and blocks all clients once one of them does not read. Here what
has come is worked on before more is read, so that nothing but monitor updates can pile up, and
those are bounded; a client that breaks the protocol is disconnected, as a C IOC does.

Answers to all requests that came together go out together, and the client's own monitor updates
with them: each write to a socket is a system call, and lets other threads take the interpreter.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import caproto as ca
from caproto.asyncio.server import VirtualCircuit
from caproto.server.common import DisconnectedCircuit

from tomostream_ioc.epics.access import plain_address
from tomostream_ioc.epics.ca_messages import BadMessageError, Message, Received, to_command
from tomostream_ioc.epics.limited_log import LimitedLog
from tomostream_ioc.epics.updates import Updates

log = logging.getLogger(__name__)

_AT_ONCE = 16  # requests of one client that are worked on before somebody else's turn
_READ_BYTES = 2**16
_MOST_UNSENT_BYTES = 2**16  # where asyncio's transports begin to ask for a pause


class BoundedCircuit(VirtualCircuit):
    """Reads requests, hands them to ``_process_command``, sends answers and monitor updates.

    ``message_limit`` is the largest payload of a request in bytes.
    """

    def __init__(self, circuit, client, context, *, message_limit: int, log_lines: LimitedLog):
        super().__init__(circuit, client, context)
        # caproto hands it to each check of access
        self.client_hostname = plain_address(circuit.address[0])
        self.client_username = ""
        self.updates = Updates()
        #: what caproto's server puts weak references to updates into
        self.subscription_queue: Any = _Taker(self)
        self._received = Received(message_limit)
        self._answers: list[bytes] = []
        self._flush_is_due = False
        self._waits_for_room = False
        self._log_lines = log_lines
        self._left_out_told = 0
        self._in_turn = 0

    @property
    def who(self) -> str:
        return f"{self.client_username!r} at {self.client_hostname}"

    async def run(self) -> None:
        self.write_event.set()
        self.events_on.set()
        sock = self.client.writer.get_extra_info("socket")
        if sock is not None:  # as in C: a client whose host lost its power is noticed
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def recv(self) -> None:
        """Wait for requests and answer them. Raises DisconnectedCircuit after the last ones."""
        try:
            data = await self.client.reader.read(_READ_BYTES)
            if not data:
                raise EOFError
            self._received.add(data)
            while (message := self._received.next_message()) is not None:
                if self._answers:  # should this one wait, they need not
                    self.flush_soon()
                if not await self._answer_directly(message):
                    await self._handle(to_command(message))
                if self._turn_is_over():
                    await self._send_answers()
                    await asyncio.sleep(0)
            await self._send_answers()
        except (EOFError, OSError):
            await self.close()
            raise DisconnectedCircuit from None
        except DisconnectedCircuit:
            await self.close()
            raise
        except BadMessageError as error:
            await self._give_up(error)
            raise DisconnectedCircuit from error

    def _turn_is_over(self) -> bool:
        """A client with a thousand requests in one packet is not the only one."""
        self._in_turn = (self._in_turn + 1) % _AT_ONCE
        return not self._in_turn

    async def _answer_directly(self, message: Message) -> bool:
        """Answer a request without an object of caproto's for it; False where it needs one."""
        return False

    async def _handle(self, command: Any) -> None:
        try:
            self.circuit.process_command(command)
        except Exception as error:  # whatever a client has sent: unknown ids, types, orders
            if isinstance(command, ca.CreateChanRequest) and not self._knows(command.cid):
                # a name with a filter that is none; caproto has no channel to answer for
                self.answer(bytes(ca.CreateChFailResponse(cid=command.cid)))
                return
            raise BadMessageError(f"{type(command).__name__}: {error}") from error
        responses = await self._process_command(command)
        if responses and self.connected:
            self.answer(b"".join(self.circuit.send(*responses)))
        for response in responses or ():
            self._settle(command, response)

    def answer(self, message: bytes) -> None:
        """Send this with all other answers of this turn."""
        self._answers.append(message)

    async def _send_answers(self) -> None:
        """Hand what there is to the socket; wait for a client that does not read it."""
        self.flush()
        if self.client.writer.transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            await self.client.writer.drain()

    def flush_soon(self) -> None:
        """Send answers and updates once what is going on now has ended."""
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_is_due = False
        self.flush()

    def flush(self) -> None:
        """Hand answers to the socket, and updates as long as it takes them."""
        transport = self.client.writer.transport
        if not self.connected or transport.is_closing():
            self._answers.clear()
            return
        while self._answers or self.updates:
            parts, self._answers = self._answers, []
            if transport.get_write_buffer_size() <= _MOST_UNSENT_BYTES:
                self._tell_left_out()
                parts.append(self.updates.take())
            elif not self._waits_for_room:
                self._waits_for_room = True
                self.tasks.create(self._flush_when_there_is_room())
            if not parts:
                return
            transport.write(b"".join(parts))

    async def _flush_when_there_is_room(self) -> None:
        try:
            await self.client.writer.drain()
        except OSError:
            return  # whoever reads from it closes the connection
        finally:
            self._waits_for_room = False
        self.flush()

    def _knows(self, cid: int) -> bool:
        return cid in self.circuit.channels

    def _settle(self, command: Any, response: Any) -> None:
        """Forget what caproto keeps of requests that were refused."""
        if isinstance(response, ca.ErrorResponse) and hasattr(command, "ioid"):
            self.circuit._ioids.pop(command.ioid, None)
        elif isinstance(response, ca.CreateChFailResponse):
            self.circuit.channels.pop(response.cid, None)

    async def _give_up(self, error: BadMessageError) -> None:
        self.context.count_bad_client()  # pyright: ignore[reportAttributeAccessIssue]
        self._log_lines.say(
            f"bad message from {self.client_hostname}", "disconnected %s: %s", self.who, error
        )
        self.flush()
        self._tell_last(error)
        await self.close()

    def _tell_last(self, error: BadMessageError) -> None:
        """The reason, if it goes out without waiting: who breaks the protocol may not read."""
        request = ca.EchoRequest()  # C sends the damaged header back; its text is what is shown
        text = "the request breaks the protocol"
        if error.status is ca.CAStatus.ECA_TOLARGE:
            text = "the request is too large for this server"
        answer = ca.ErrorResponse(request, 0xFFFFFFFF, error.status, text)
        transport = self.client.writer.transport
        if not transport.is_closing() and not transport.get_write_buffer_size():
            self.client.writer.write(bytes(answer))

    async def close(self) -> None:
        """Close the connection and end all that works for it. May be called twice."""
        if not self.connected:
            return
        self.connected = False
        await self._cull_subscriptions(None, lambda _: True)
        self.subscriptions.clear()
        self.subscriptions_to_resend.clear()
        self.updates.clear()
        transport = self.client.writer.transport
        if transport.get_write_buffer_size():
            transport.abort()  # close() would wait for a client that does not read
        else:
            self.client.close()
        current = asyncio.current_task()
        for task in list(self.tasks.tasks):
            if task is not current:
                task.cancel()
        self.circuit.process_command(ca.DISCONNECTED)

    async def _cull_subscriptions(self, db_entry, func):
        removed = await super()._cull_subscriptions(db_entry, func)
        for spec, subscription in removed:
            self.updates.forget(subscription.subscriptionid)
            if not self.context.subscriptions[spec]:
                del self.context.subscriptions[spec]
            if not self.subscriptions.get(spec):
                self.subscriptions.pop(spec, None)
        return removed

    def hold_updates(self) -> None:
        """The client takes no updates for a while: note of which monitors it must get them then."""
        waiting = self.updates.clear()
        for spec, subscriptions in self.subscriptions.items():
            for subscription in subscriptions:
                if subscription.subscriptionid in waiting:
                    self.subscriptions_to_resend.setdefault(spec, []).append(subscription)

    def _tell_left_out(self) -> None:
        new = self.updates.left_out - self._left_out_told
        if new:
            self._left_out_told = self.updates.left_out
            self._log_lines.say(
                f"slow {self.client_hostname}",
                "%s reads too slowly: %d monitor updates were left out, the newest are kept",
                self.who,
                new,
                level=logging.INFO,
            )


class _Taker:
    """What caproto's server takes for a queue of weak references to updates."""

    def __init__(self, circuit: BoundedCircuit):
        self._circuit = circuit

    async def put(self, reference: Any) -> None:
        update = reference()
        self._circuit.updates.add(update.subscriptionid, bytes(update))
        self._circuit.flush_soon()
