"""Ends connections of the PVA server that bring a message without end.

pvxs 1.5.3, which is the server, collects a message up to the 4 GB that its header may claim, and
any number of parts of a segmented one. It has no setting for it and does not tell what it holds.
But the kernel tells how many bytes each connection brought, and pvxs whether it got on with the
client's requests. No request here has more than some kilobytes: megabytes without one that is done
are no client's.

pvxs is asked only where a connection has brought 256 kB since the last time, as it takes a turn
of the server's thread. Decision 0027 has what else could be done.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from p4p._gw import Server_report  # Server.tostr() tells more, but may wait for itself for ever
from p4p.server import Server

from tomostream_ioc.epics.limited_log import LimitedLog

log = logging.getLogger(__name__)

_PERIOD_S = 0.05
_SHARE = 0.05  # of a processor, at most: with a thousand connections a check takes a while
_ASK_BYTES = 2**18
#: that came without a request that was done
_MOST_BYTES = 4 * 2**20
_MOST_OF_ALL_BYTES = 64 * 2**20
_SLOW_BYTES = 2**16
#: for so much without its end; above the 15 s after which clients echo, as a search over TCP that
#: finds nothing gets no answer
_SLOW_S = 20.0
_KEPT_S = 5.0
_END_S = 10.0
_INTERNET = socket.AF_INET, socket.AF_INET6
#: of struct tcp_info (linux/tcp.h): bytes acknowledged by the peer, and received from it
_COUNTS = struct.Struct("=120xQQ")


@dataclass(frozen=True, slots=True)
class _Connection:
    fd: int
    inode: int
    peer: str  # as pvxs writes it
    sent: int  # bytes
    received: int  # bytes, with those that wait in the kernel
    unread: int  # bytes that wait in the kernel
    unsent: int  # bytes that wait in the kernel, or for the client to confirm them

    @property
    def key(self) -> tuple[str, int]:
        """Tells it from a later one of the same address and port."""
        return self.peer, self.inode


@dataclass(slots=True)
class _Seen:
    """What is remembered of a connection from one check to the next."""

    received: int
    done: int = 0  # bytes it had read when it was last seen to get on with this client's requests
    written: int = 0  # bytes that it has sent
    answered: int = 0  # bytes it had read when it last sent something
    asked_s: float = float("-inf")
    in_vain_s: float | None = None  # since when nothing was done
    closed_s: float | None = None
    is_told: bool = False


class PvaGuard:
    """Watches the connections of ``server`` from a thread of its own, from now to ``close()``."""

    def __init__(self, server: Server):
        self._server = server
        self._ports = _ports(server.conf())
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._closed = 0
        self._log_lines = LimitedLog(log)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pva guard", daemon=True)
        if hasattr(socket, "TCP_INFO") and os.path.isdir("/proc/self/fd"):
            self._thread.start()
        else:
            log.warning("PV Access messages have no bound here: this system does not count bytes")

    @property
    def closed(self) -> int:
        """Connections that were ended since the start."""
        return self._closed

    def close(self) -> None:
        """End the thread; before the server ends, which is not to be asked any more then."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)

    def _run(self) -> None:
        period_s = _PERIOD_S
        while not self._ending.wait(period_s):
            before_s = time.thread_time()
            try:
                self._check(time.monotonic())
            except Exception:  # noqa: BLE001 - told, and the next check may do
                self._log_lines.exception("check", "PVA connections could not be checked")
            period_s = max(_PERIOD_S, (time.thread_time() - before_s) / _SHARE)

    def _check(self, now_s: float) -> None:
        # counted first and asked then: what is done in between is no message without end
        connections = list(_connections(self._ports))
        self._remember(connections)
        for connection in connections:
            self._tell_if_kept(connection, now_s)
        connections = [c for c in connections if self._seen[c.key].closed_s is None]
        if self._is_to_be_asked(connections, now_s):
            got_on = _got_on(self._server)
            for connection in connections:
                self._note(connection, got_on.get(connection.peer), now_s)
        left = 0
        for held, connection in sorted(((self._held(c), c) for c in connections), key=_by_bytes):
            left += max(held, 0)
            if held > _MOST_BYTES or left > _MOST_OF_ALL_BYTES or self._is_slow(connection, now_s):
                self._close(connection, held, now_s)
                left -= max(held, 0)

    def _remember(self, connections: list[_Connection]) -> None:
        old, self._seen = self._seen, {}
        for connection in connections:
            written = connection.sent + connection.unsent
            # the greeting that it has sent to a new one answers nothing
            seen = old.get(connection.key) or _Seen(connection.received, written=written)
            seen.received = connection.received
            if written != seen.written:
                seen.written, seen.answered = written, connection.received - connection.unread
            self._seen[connection.key] = seen

    def _is_to_be_asked(self, connections: list[_Connection], now_s: float) -> bool:
        total = 0
        for connection in connections:
            seen = self._seen[connection.key]
            since = connection.received - seen.done
            total += since
            is_time = now_s - seen.asked_s > _SLOW_S / 3
            if since > _ASK_BYTES or (since > _SLOW_BYTES and is_time):
                return True
        return total > _MOST_OF_ALL_BYTES

    def _note(self, connection: _Connection, got_on: bool | None, now_s: float) -> None:
        seen = self._seen[connection.key]
        seen.asked_s = now_s
        done = connection.received - connection.unread
        if got_on is None:  # without channels a client gets answers and nothing else
            done, got_on = seen.answered, seen.answered > seen.done
        if got_on:
            seen.done, seen.in_vain_s = done, None
        elif seen.in_vain_s is None:
            seen.in_vain_s = now_s

    def _held(self, connection: _Connection) -> int:
        return connection.received - connection.unread - self._seen[connection.key].done

    def _is_slow(self, connection: _Connection, now_s: float) -> bool:
        seen = self._seen[connection.key]
        return (
            seen.in_vain_s is not None
            and seen.asked_s - seen.in_vain_s > _SLOW_S
            and connection.received - seen.done > _SLOW_BYTES
            and not connection.unsent  # who does not read may be what holds it up
        )

    def _close(self, connection: _Connection, held: int, now_s: float) -> None:
        with contextlib.suppress(OSError), _Borrowed(connection.fd) as sock:
            if _peer(sock) != connection.peer:
                return  # it has gone by itself
            sock.shutdown(socket.SHUT_RDWR)  # the server sees the end of it, and frees all
            self._seen[connection.key].closed_s = now_s
            self._closed += 1
            self._log_lines.say(
                connection.peer.rpartition(":")[0],
                "disconnected PVA client %s: %.1f MB of a message came, but not its end",
                connection.peer,
                max(held, connection.unread) / 1e6,
            )

    def _tell_if_kept(self, connection: _Connection, now_s: float) -> None:
        seen = self._seen[connection.key]
        if seen.closed_s is not None and now_s - seen.closed_s > _KEPT_S and not seen.is_told:
            seen.is_told = True
            log.error(
                "The connection of PVA client %s is ended, but pvxs does not let go of it: its "
                "thread keeps a processor busy until this program is started again",
                connection.peer,
            )


def _by_bytes(pair: tuple[int, _Connection]) -> int:
    return pair[0]


def _got_on(server: Server) -> dict[str, bool]:
    """Whether a request of each peer was done since the last time; peers without channels lack.

    Nothing is done for a client while its message has not ended, but updates may go out to it:
    so what counts is what its channels took, and what was sent otherwise.
    """
    done: dict[str, float] = {}
    for _, _, sent, taken, _, peer, sent_in_all, _ in Server_report(server._S):  # since the last
        done[peer] = done.get(peer, sent_in_all) + taken - sent
    return {peer: size > 0 for peer, size in done.items()}


def _ports(conf: Mapping[str, str]) -> set[int]:
    """Where the server listens: each interface may have a port of its own."""
    interfaces = (each.rpartition(":") for each in conf["EPICS_PVAS_INTF_ADDR_LIST"].split())
    own = (port for address, _, port in interfaces if address and port.isdecimal())
    return {int(port) for port in (conf["EPICS_PVAS_SERVER_PORT"], *own)}


def _connections(ports: Collection[int]) -> Iterator[_Connection]:
    """All connections of this process to a server's ports here."""
    for name in os.listdir("/proc/self/fd"):
        # others are closed meanwhile, or are no sockets, or listen
        with contextlib.suppress(OSError), _Borrowed(int(name)) as sock:
            if sock.family not in _INTERNET or sock.getsockname()[1] not in ports:
                continue
            peer = _peer(sock)
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTS.size)
            unread, unsent = (
                int.from_bytes(fcntl.ioctl(sock, request, bytes(4)), sys.byteorder)
                for request in (termios.FIONREAD, termios.TIOCOUTQ)
            )
            sent, received = _COUNTS.unpack(info)
            inode = os.fstat(int(name)).st_ino
            yield _Connection(int(name), inode, peer, sent, received, unread, unsent)


def _peer(sock: socket.socket) -> str:
    host, port, *_ = sock.getpeername()
    host = host.partition("%")[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Borrowed:
    """Somebody else's socket, which stays open. OSError: it is none."""

    def __init__(self, fd: int):
        self._socket = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=fd)

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.detach()
