"""Forwards documents from all who publish to all who listen: bluesky's proxy, with its ports."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

import zmq

from tomostream_ioc.documents.transport.address import LOOPBACK, Address
from tomostream_ioc.documents.transport.curve import CurveKeys
from tomostream_ioc.errors import ConfigError

#: messages held for each that is slower than the publisher
HIGH_WATER = 100
_CONTROL = "inproc://control"
_TICK_S = 0.2
_JOIN_S = 5.0


class DocumentProxy:
    """Publishers and listeners of bluesky connect to it as they do to bluesky's own Proxy.

    That one forgets who listens, so that publishers can't know; it holds up to 1000 messages,
    8 GB of images of 4 million pixels; and CURVE can't be used on both of its ports.

    in_port, out_port : publishers connect to the first, listeners to the second
    interfaces : IP addresses to bind
    keys : CURVE keys, or None for neither encryption nor a check of who connects
    high_water : messages held for each that is slow; more are dropped, which the listener sees as
        gaps

    Raises ConfigError: a port is taken, an address is not of this host, or a key can't be read.
    """

    def __init__(
        self,
        in_port: int,
        out_port: int,
        *,
        interfaces: Sequence[str] = (LOOPBACK,),
        keys: CurveKeys | None = None,
        high_water: int = HIGH_WATER,
    ):
        self._context = zmq.Context()
        self._authenticator = None
        try:
            if keys is not None:
                keys.check(binds=True)
                self._authenticator = keys.authenticator(self._context)
            self._control = self._context.socket(zmq.PAIR)
            self._control.bind(_CONTROL)
            self._in = self._bound(zmq.XSUB, in_port, interfaces, keys, high_water)
            self._out = self._bound(zmq.XPUB, out_port, interfaces, keys, high_water)
        except BaseException:
            self.close()
            raise

    def _bound(
        self,
        kind: int,
        port: int,
        interfaces: Sequence[str],
        keys: CurveKeys | None,
        high_water: int,
    ) -> zmq.Socket:
        socket = self._context.socket(kind)
        socket.set_hwm(high_water)
        socket.linger = 0
        if keys is not None:
            keys.bind(socket)
        for interface in interfaces:
            address = Address(interface, port)
            if ":" in interface:
                socket.ipv6 = True
            try:
                socket.bind(address.uri)
            except zmq.ZMQError as error:
                raise ConfigError(f"{address} can't be bound: {error.strerror}") from error
        return socket

    def run(self) -> None:
        """Forward until an exception, such as KeyboardInterrupt or what a signal's handler raises,
        ends it."""
        # in a thread: ZeroMQ's loop misses a signal that comes while it handles something else,
        # and then waits for the next message
        thread = threading.Thread(target=self._forward, name="proxy", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_TICK_S)
        finally:
            self._control.send(b"TERMINATE")
            thread.join(_JOIN_S)

    def _forward(self) -> None:
        with self._context.socket(zmq.PAIR) as steered:
            steered.connect(_CONTROL)
            zmq.proxy_steerable(self._in, self._out, None, steered)

    def close(self) -> None:
        if self._authenticator is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._authenticator.stop()
            self._authenticator = None
        self._context.destroy(linger=0)
