"""Sends documents to a proxy, as bluesky's Publisher does, and knows whether anybody listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import zmq

from tomostream_ioc.documents.transport.address import Address
from tomostream_ioc.documents.transport.curve import CurveKeys
from tomostream_ioc.documents.transport.link import Link
from tomostream_ioc.documents.transport.proxy import HIGH_WATER
from tomostream_ioc.documents.transport.serializer import WireError, dumps

_LINGER_MS = 10_000


class DocumentPublisher:
    """A bluesky callback: ``publisher(name, document)``. Messages are those of bluesky's Publisher.

    Unlike that one it can wait until somebody listens, and, ``lossless``, waits at the high-water
    mark rather than drop documents; and documents are MessagePack unless ``serializer`` is another.

    ``sent`` counts documents, ``unheard`` those of them that went while nobody listened,
    ``dropped`` those that a listener was too slow for.

    lossless : wait up to ``timeout_s`` for a listener that is slow, then raise WireError; otherwise
        a document that would have to wait is dropped

    Raises ConfigError: a key can't be read.
    """

    def __init__(
        self,
        address: Address,
        *,
        prefix: bytes = b"",
        serializer: Callable[[Any], bytes] = dumps,
        keys: CurveKeys | None = None,
        lossless: bool = True,
        timeout_s: float = 60.0,
        high_water: int = HIGH_WATER,
    ):
        self.sent = 0
        self.unheard = 0
        self.dropped = 0
        self.address = address
        self._prefix = prefix
        self._serializer = serializer
        self._lossless = lossless
        self._timeout_s = timeout_s
        self._topics: set[bytes] = set()
        self._context = zmq.Context()
        # XPUB is PUB that hands out who subscribes
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.linger = _LINGER_MS
        self._socket.sndhwm = high_water
        self._socket.sndtimeo = int(1e3 * timeout_s) if lossless else 0
        # without it ZeroMQ drops, and says nothing
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        try:
            self._link = Link(self._socket, address, keys)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    @property
    def connected(self) -> bool:
        self._link.watch()
        return self._link.connected

    @property
    def refusal(self) -> str:
        """Why the proxy does not let this publisher in, or ""."""
        self._link.watch()
        return self._link.refusal

    def wait_for_listener(self, timeout_s: float) -> bool:
        """Whether anybody listens within ``timeout_s``; False at once where the proxy refuses this
        client. A bluesky Proxy always listens, a DocumentProxy when a listener of its own does."""
        deadline = time.monotonic() + timeout_s
        while not self._is_heard():
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self._link.is_refused:
                return False
            self._socket.poll(int(1e3 * min(left_s, 0.1)) or 1)
        return True

    def __call__(self, name: str, doc: Any) -> None:
        """Raises WireError: the document can't be sent, or nobody takes it."""
        name = str(getattr(name, "name", name))
        message = b" ".join((self._prefix, name.encode(), self._serializer(doc)))
        self.unheard += not self._is_heard()
        try:
            self._socket.send(message, copy=False)
        except zmq.Again:
            if not self._lossless:
                self.dropped += 1
                return
            raise WireError(
                f"Who listens at {self.address} took no document for {self._timeout_s:g} s"
            ) from None
        self.sent += 1

    def close(self, linger_s: float = _LINGER_MS / 1e3) -> None:
        """Send what is still queued, within ``linger_s``."""
        self._link.close()
        self._context.destroy(linger=int(1e3 * linger_s))

    def _is_heard(self) -> bool:
        """Whether anybody subscribed to what begins as this publisher's messages do."""
        self._link.watch()
        while self._socket.poll(0):
            message = self._socket.recv()
            if message[:1] == b"\x01":
                self._topics.add(message[1:])
            elif message[:1] == b"\x00":
                self._topics.discard(message[1:])
        return any((self._prefix + b" ").startswith(topic) for topic in self._topics)
