"""Listens to documents on the network: what can't be used is counted, said and survived."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq
from event_model import DocumentNames

from tomostream_ioc.documents.transport.address import Address
from tomostream_ioc.documents.transport.curve import CurveKeys
from tomostream_ioc.documents.transport.link import Link
from tomostream_ioc.documents.transport.proxy import HIGH_WATER
from tomostream_ioc.documents.transport.serializer import WireError, loads

log = logging.getLogger(__name__)

_NAMES = frozenset(name.name.encode() for name in DocumentNames)
#: prefix and name stand within so many bytes
_HEAD = 512
#: the same reason is said again after so long, with how many there were
_SAY_EVERY_S = 10.0


@dataclass(slots=True)
class ReceiverCounts:
    """Messages. documents: taken. other: of other prefixes. refused: can't be read as a document;
    pickled: those of them that are pickles."""

    documents: int = 0
    other: int = 0
    refused: int = 0
    pickled: int = 0


class DocumentReceiver:
    """Takes the messages of bluesky's Publisher, one after another, in the caller's thread.

    bluesky's own RemoteDispatcher ends at a document whose name it does not know, prints what it
    can't read in full, and takes in without limit what its callbacks are too slow for.

    address : of a proxy's second port
    prefix : messages with another first word are left out; empty for all
    deserializer : bytes to document, such as `loads`; any error that it raises is counted
    keys : CURVE keys or None
    high_water : messages that wait here at most; a proxy or publisher holds more, then drops

    Raises ConfigError: a key can't be read.
    """

    def __init__(
        self,
        address: Address,
        *,
        prefix: bytes = b"",
        deserializer: Callable[[Any], dict[str, Any]] = loads,
        keys: CurveKeys | None = None,
        high_water: int = HIGH_WATER,
    ):
        self.counts = ReceiverCounts()
        self.address = address
        self._prefix = prefix
        self._deserializer = deserializer
        self._reasons: Counter[str] = Counter()
        self._said_at: dict[str, float] = {}
        self._context = zmq.Context()
        try:
            self._socket = self._context.socket(zmq.SUB)
            self._socket.rcvhwm = high_water
            # "raw" would let "raw2" through as well
            self._socket.subscribe(prefix + b" " if prefix else b"")
            self._link = Link(self._socket, address, keys)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._link.monitor, zmq.POLLIN)

    @property
    def connected(self) -> bool:
        return self._link.connected

    @property
    def refusal(self) -> str:
        """Why the proxy does not let this listener in, or ""."""
        return self._link.refusal

    def receive(self, timeout_s: float) -> tuple[str, dict[str, Any]] | None:
        """The next document; None when none came in time, or what came is none."""
        ready = dict(self._poller.poll(int(1e3 * timeout_s)))
        self._link.watch()
        if self._socket not in ready:
            return None
        frames = self._socket.recv_multipart(copy=False)
        message = frames[0].buffer
        head = bytes(message[:_HEAD])
        first, _, rest = head.partition(b" ")
        name, space, _ = rest.partition(b" ")
        if len(frames) > 1 or not space or name not in _NAMES:
            self._refuse("it is no message of a bluesky publisher")
            return None
        if self._prefix and first != self._prefix:
            self.counts.other += 1
            return None
        try:
            doc = self._deserializer(message[len(first) + len(name) + 2 :])
        except WireError as error:
            self.counts.pickled += "pickled" in str(error)
            self._refuse(str(error))
            return None
        except Exception as error:  # noqa: BLE001 - a deserializer of others, and any bytes
            self._refuse(f"{type(error).__name__}: {error}")
            return None
        self.counts.documents += 1
        return name.decode(), doc

    def close(self) -> None:
        self._link.close()
        self._context.destroy(linger=0)

    def _refuse(self, reason: str) -> None:
        """Count, and say: a flood of the same fills no log."""
        self.counts.refused += 1
        reason = reason[:300]
        if len(self._reasons) > 100:
            self._reasons.clear()
            self._said_at.clear()
        self._reasons[reason] += 1
        now = time.monotonic()
        if now - self._said_at.get(reason, float("-inf")) < _SAY_EVERY_S:
            return
        self._said_at[reason] = now
        log.warning(
            "A message from %s is left out (%d so far): %s",
            self.address,
            self._reasons[reason],
            reason,
        )
