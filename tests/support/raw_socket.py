"""A TCP connection to a server here on which anything can be sent: what no library would send."""

from __future__ import annotations

import contextlib
import socket


class RawSocket:
    """``data`` is what has come and was not taken yet."""

    def __init__(self, port: int, limit_s: float = 20.0):
        self.socket = socket.create_connection(("127.0.0.1", port), limit_s)
        self.data = b""

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def fill(self) -> None:
        """Wait for more data; ConnectionError when there is no more."""
        got = self.socket.recv(65536)
        if not got:
            raise ConnectionError("closed by the server")
        self.data += got

    def take(self, size: int) -> bytes:
        """The first bytes of what has come."""
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def is_closed(self, limit_s: float = 20.0) -> bool:
        """Whether the server closes the connection within the limit; what it sends is read."""
        self.socket.settimeout(limit_s)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()
