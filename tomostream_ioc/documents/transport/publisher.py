"""Sends documents to a proxy, as bluesky's Publisher does, and knows whether anybody listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import zmq

from tomostream_ioc.documents.transport.address import Address
from tomostream_ioc.documents.transport.curve import CurveKeys
from tomostream_ioc.documents.transport.proxy import HIGH_WATER
from tomostream_ioc.documents.transport.serializer import WireError, dumps

_LINGER_MS = 10_000


class DocumentPublisher:
    """A bluesky callback: ``publisher(name, document)``. Messages are those of bluesky's Publisher.

    Unlike that one it can wait until somebody listens, and, ``lossless``, waits at the high-water
    mark rather than drop documents; and documents are MessagePack unless ``serializer`` is another.

    lossless : wait up to ``timeout_s`` for a listener that is slow, then raise WireError

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
        self._address = address
        self._prefix = prefix
        self._serializer = serializer
        self._timeout_s = timeout_s
        self._context = zmq.Context()
        # XPUB is PUB that hands out who subscribes
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.linger = _LINGER_MS
        self._socket.sndhwm = high_water
        self._socket.sndtimeo = int(1e3 * timeout_s)
        self._socket.setsockopt(zmq.XPUB_NODROP, int(lossless))
        try:
            if keys is not None:
                keys.connect(self._socket)
            self._socket.connect(address.uri)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def wait_for_listener(self, timeout_s: float) -> bool:
        """Whether anybody subscribed within ``timeout_s``. A bluesky Proxy always does, a
        DocumentProxy when a listener of its own has."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            ready = self._socket.poll(int(1e3 * min(left_s, 0.5)) or 1)
            if ready and self._socket.recv()[:1] == b"\x01":
                return True
        return False

    def __call__(self, name: str, doc: Any) -> None:
        """Raises WireError: the document can't be sent, or nobody takes it."""
        name = str(getattr(name, "name", name))
        message = b" ".join((self._prefix, name.encode(), self._serializer(doc)))
        try:
            self._socket.send(message, copy=False)
        except zmq.Again:
            raise WireError(
                f"Who listens at {self._address} took no document for {self._timeout_s:g} s"
            ) from None
        self.sent += 1

    def close(self, linger_s: float = _LINGER_MS / 1e3) -> None:
        """Send what is still queued, within ``linger_s``."""
        self._context.destroy(linger=int(1e3 * linger_s))
