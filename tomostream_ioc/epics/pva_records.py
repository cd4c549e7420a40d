"""Every record over PVA, as QSRV of a C IOC serves it; the records themselves live on caproto."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from caproto import CAStatus
from p4p.server import DynamicProvider, ServerOperation, StaticProvider
from p4p.server.raw import SharedPV

from tomostream_ioc.epics.access import plain_address
from tomostream_ioc.epics.channel import DBE_ALARM, DBE_PROPERTY, DBE_VALUE
from tomostream_ioc.epics.eager import run_eagerly
from tomostream_ioc.epics.lendable_loop import LendableLoop
from tomostream_ioc.epics.put_log import PutLog
from tomostream_ioc.epics.pva_nt import WHOLE, Layout, code_of
from tomostream_ioc.epics.pva_sink import Provider
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.wire import PutError

log = logging.getLogger(__name__)

_MAX_PUTS = 1000  # that wait for their turn, and again that wait for the end of a run
_MONITORED = DBE_VALUE | DBE_ALARM | DBE_PROPERTY
_ENDING = "the IOC ends"


class PvaRecords:
    """Serves records by two p4p providers: listed by their names, and unlisted their fields.

    p4p calls from threads of its own: whatever touches a record is handed over to the event loop of
    ``serve()``, puts in the order in which they came. Where that is a LendableLoop with nothing to
    do, a put is done in its place: all PVA clients wait for it, and for the monitors it posts, but
    not as long as for two changes of threads. A client that is too slow for its monitors gets the
    newest value; more than 1000 puts in waiting are refused.

    Puts are judged by access security as over CA; reads are not: see AccessSecurity.is_readable.
    """

    def __init__(self) -> None:
        self.put_log = PutLog()
        self._names = StaticProvider("records")
        self._fields = DynamicProvider("fields", self)
        self._records: Mapping[str, Record] = {}
        self._channels: dict[str, RecordChannel] = {}
        self._lock = threading.Lock()  # of _channels and _put_count, for p4p's threads
        self._loop: asyncio.AbstractEventLoop | None = None
        self._puts: deque[_Put] = deque()
        self._put_count = 0  # handed over and not done yet
        self._is_putting = False
        self._putting: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    @property
    def providers(self) -> Sequence[Provider]:
        """For the p4p server, with their order; they have no channels before `serve`."""
        # a server offers each name to its providers in turn: the fields take what nobody has
        return (self._names, 0), (self._fields, 1)

    def serve(self, records: Iterable[Record]) -> None:
        """Serve these from the running loop, which must be the records' own."""
        self._loop = asyncio.get_running_loop()
        self._records = {record.pvname: record for record in records}
        for name in self._records:
            self._names.add(name, self._channel(name, "VAL").pv)

    async def close(self) -> None:
        """End all channels; whoever waits for the end of a put is told."""
        self._loop = None
        self._records = {}
        tasks = [task for task in (self._putting, *self._waiting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for put in self._puts:
            put.operation.done(error=_ENDING)
        self._puts.clear()
        for channel in self._channels.values():
            channel.close()
        self._names.close()

    # --- called by p4p, from threads of its own -----------------------------------------------

    def testChannel(self, name: str) -> bool:  # noqa: N802 - p4p's name
        # DynamicProvider.NotYet, for the time before `serve`, would claim the name
        record, _, field = name.partition(".")
        try:
            code_of(self._records[record], field)
        except KeyError:
            return False
        return True

    def makeChannel(self, name: str, _peer: str) -> SharedPV:  # noqa: N802 - p4p's name
        record, _, field = name.partition(".")
        try:
            return self._channel(record, field).pv
        except KeyError:  # all was closed since testChannel(), and the server ends: never opened
            return SharedPV()

    def _channel(self, name: str, field: str) -> RecordChannel:
        key = f"{name}.{field}"
        with self._lock:
            if key not in self._channels:
                self._channels[key] = RecordChannel(self, self._records[name], field)
            return self._channels[key]

    def hand_over(self, function: Any, *arguments: Any) -> bool:
        """Have this called on the loop; False where that has ended."""
        loop = self._loop
        if loop is None:
            return False
        with contextlib.suppress(RuntimeError):  # the loop was closed just now
            loop.call_soon_threadsafe(function, *arguments)
            return True
        return False

    def put(self, channel: RecordChannel, operation: ServerOperation) -> None:
        with self._lock:
            n_before = self._put_count
            self._put_count += n_before < _MAX_PUTS
        put = _Put(channel, operation)
        if n_before >= _MAX_PUTS:
            operation.done(error="too many puts wait")
        elif n_before == 0 and self._borrow(self._take, put):
            return  # it is done, or begun, and no thread had to wake up for it
        elif not self.hand_over(self._take, put):
            self._put_is_done()
            operation.done(error=_ENDING)

    def _borrow(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Call this here in the loop's place; False where the loop is busy."""
        loop = self._loop
        return isinstance(loop, LendableLoop) and loop.borrow(function, *arguments)

    def _put_is_done(self) -> None:
        with self._lock:
            self._put_count -= 1

    # --- on the loop --------------------------------------------------------------------------

    def _take(self, put: _Put) -> None:
        if self._loop is None:
            self._put_is_done()
            put.operation.done(error=_ENDING)
            return
        self._puts.append(put)
        if not self._is_putting:
            self._next()

    def _next(self) -> None:
        """Do the put whose turn it is; the one after it when others have had theirs."""
        self._is_putting = bool(self._puts)
        if not self._puts:
            return
        self._putting = run_eagerly(self._do(self._puts.popleft()))
        if self._putting is None:
            self._done(None)
        else:
            self._putting.add_done_callback(self._done)

    def _done(self, _task: asyncio.Task[None] | None) -> None:
        self._put_is_done()
        self._is_putting = bool(self._puts)
        if self._puts:  # in the turn after the next: who puts without end is not the only client
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._next)

    async def _do(self, put: _Put) -> None:
        try:
            done = await put.channel.store(put.operation)
            if done is None or done.done() or not _option(put.operation, "block"):
                put.operation.done()
                return
            if len(self._waiting) >= _MAX_PUTS:
                raise PutError("done, but too many puts wait for the end of it")
            task = asyncio.get_running_loop().create_task(_complete(done, put.operation))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        except PutError as refusal:
            put.operation.done(error=str(refusal))
        except asyncio.CancelledError:
            put.operation.done(error=_ENDING)
            raise
        except Exception:
            log.exception("put to %s by %s failed", put.name, put.operation.peer())
            put.operation.done(error="internal error")


async def _complete(done: asyncio.Future[None], operation: ServerOperation) -> None:
    """Answer a put with block=true when the work behind it has ended."""
    try:
        await asyncio.shield(done)
    except asyncio.CancelledError:
        operation.done(error=_ENDING)
        raise
    operation.done()


class RecordChannel:
    """One channel: VAL of a record, or a field. It opens when the first client asks for it."""

    def __init__(self, records: PvaRecords, record: Record, name: str):
        self._records, self._record, self.name = records, record, name
        self._layout: Layout | None = None
        self.pv = SharedPV(handler=self)

    def close(self) -> None:
        """No more posts; on the loop."""
        if self._layout is not None:
            self._layout.channel.observers.remove(self._post)

    async def store(self, operation: ServerOperation) -> asyncio.Future[None] | None:
        """Do a put, by the way that a put over CA takes; raises PutError."""
        layout = self._opened()
        data, data_type = layout.put_data(operation.value())
        process = _option(operation, "process")
        if process is False and layout.channel.processes_when_put:
            raise PutError("this value takes effect by processing: not with process=false")
        address, user = _address_of(operation.peer()), operation.account()
        if self.name == "ASG":  # clients over CA are told of it, which only its server does
            raise PutError("put ASG over Channel Access")
        put_log = self._records.put_log
        trapped = layout.channel.grant(address, user).trapped
        try:
            done = await layout.channel.authorised_put(address, user, data, data_type, None)
        except PutError as refusal:
            denied = refusal.status is CAStatus.ECA_NOWTACCESS
            tell = put_log.denied if denied else put_log.refused
            tell(operation.name(), data, address, user, str(refusal))
            raise
        if trapped:
            put_log.trapped(operation.name(), data, address, user)
        if process and not layout.channel.processes_when_put:
            await self._record.process()
        return done

    def _opened(self) -> Layout:
        if self._layout is None:
            self._layout = Layout(self._record, self.name)
            self.pv.open(self._layout.update(WHOLE))
            self._layout.channel.observers.append(self._post)
        return self._layout

    def _post(self, flags: int) -> None:
        if self._layout is None or not flags & _MONITORED:
            return
        try:
            self.pv.post(self._layout.update(flags & _MONITORED))
        except Exception:  # CA's monitors must not miss it for that
            log.exception("%s.%s could not be posted over PVA", self._record.pvname, self.name)

    # --- called by p4p, from threads of its own -----------------------------------------------

    def onFirstConnect(self, _pv: SharedPV) -> None:  # noqa: N802 - p4p's name
        self._records.hand_over(self._opened)

    def put(self, _pv: SharedPV, operation: ServerOperation) -> None:
        self._records.put(self, operation)

    def rpc(self, _pv: SharedPV, operation: ServerOperation) -> None:
        operation.done(error="RPC Not Implemented")


@dataclass(frozen=True, slots=True)
class _Put:
    channel: RecordChannel
    operation: ServerOperation

    @property
    def name(self) -> str:
        return self.operation.name()


_address_of = lru_cache(4096)(plain_address)


def _option(operation: ServerOperation, name: str) -> bool | None:
    """record._options.NAME of a request; None where it says nothing or 'passive'."""
    request, field = operation.pvRequest(), f"record._options.{name}"
    # get() of what is not there throws in C++, which takes 0.1 ms with torch's libraries loaded
    said = request[field] if request.has(field) else None
    return {"true": True, "1": True, "false": False, "0": False}.get(str(said).lower())
