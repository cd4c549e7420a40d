"""Whether a socket is connected to its proxy, and what the proxy said where it is not."""

from __future__ import annotations

import logging
import time
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from tomostream_ioc.documents.transport.address import Address
from tomostream_ioc.documents.transport.curve import CurveKeys

log = logging.getLogger(__name__)

#: the same reason is said again after so long
_SAY_EVERY_S = 10.0
#: a connection that was refused for good is tried again after so long
_AGAIN_S = 5.0
#: so many handshakes in a row that failed, of whatever reason, and nobody waits for the next
_TRIES = 5
_ONE_SIDE = "one side uses CURVE keys, the other does not"
#: ZeroMQ does not try again after these two
_FINAL = {
    zmq.Event.HANDSHAKE_FAILED_AUTH: "this client's CURVE key is refused there: is its .key in the"
    " proxy's DIR/clients?",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: _ONE_SIDE,
}
_UNCLEAR = (
    "the handshake failed: does only one side use CURVE keys, or is server.key not the proxy's?"
)


class Link:
    """Connects ``socket``, with ``keys`` or without, and follows what becomes of it.

    ``connected`` says whether it is; ``refusal`` why the other side does not let it in, or "".
    ZeroMQ gives up where a key is refused: this tries again, as the proxy may be started anew with
    the right one.

    Raises ConfigError: a key can't be read.
    """

    def __init__(self, socket: zmq.Socket, address: Address, keys: CurveKeys | None):
        self.connected = False
        self.refusal = ""
        self._socket = socket
        self._address = address
        # which of its two failures ZeroMQ reports to a client without keys is a matter of timing
        self._unclear = _ONE_SIDE if keys is None else _UNCLEAR
        self._failed = 0
        self._again_at = float("inf")
        self._said_at: dict[str, float] = {}
        self.monitor = socket.get_monitor_socket()
        if keys is not None:
            keys.connect(socket)
        socket.connect(address.uri)

    @property
    def is_refused(self) -> bool:
        """For good: not for as long as both sides stay what they are."""
        return bool(self.refusal) and (self._failed >= _TRIES or self._again_at < float("inf"))

    def watch(self) -> None:
        """Take what has happened since the last call; never waits."""
        while self.monitor.poll(0):
            self._event(recv_monitor_message(self.monitor))
        if time.monotonic() >= self._again_at:
            self._again_at = float("inf")
            self._socket.disconnect(self._address.uri)
            self._socket.connect(self._address.uri)

    def close(self) -> None:
        self._socket.disable_monitor()

    def _event(self, message: Any) -> None:
        event = message["event"]
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            self.connected, self.refusal, self._failed = True, "", 0
            log.info("Connected to %s", self._address)
        elif event == zmq.Event.DISCONNECTED:
            if self.connected:
                log.warning("The connection to %s is lost; trying again", self._address)
            self.connected = False
        elif event in _FINAL:
            self._again_at = time.monotonic() + _AGAIN_S
            self._refused(_FINAL[event])
        elif event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL:
            self._failed += 1
            # the first comes before ZeroMQ knows more, and where the proxy is just ending
            if self._failed >= _TRIES:
                self._refused(self._unclear)

    def _refused(self, reason: str) -> None:
        self.refusal = reason
        now = time.monotonic()
        if now - self._said_at.get(reason, float("-inf")) >= _SAY_EVERY_S:
            self._said_at[reason] = now
            log.warning("No connection to %s: %s", self._address, reason)
