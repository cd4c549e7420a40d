"""A CA client that says what it likes: source address, host name, user, puts it may not do."""

from __future__ import annotations

import socket
from typing import Any

import caproto as ca


class RawClient:
    """Speaks the protocol itself, where libca would refuse before anything is sent."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", host: str = "h", user: str = "u"):
        address = ("127.0.0.1", port)
        self._socket = socket.create_connection(address, 5.0, source_address=(source, 0))
        self._circuit = ca.VirtualCircuit(ca.CLIENT, address, 0)
        self._waiting: list[Any] = []
        self.rights: dict[str, ca.AccessRights] = {}
        self._channels: dict[str, ca.ClientChannel] = {}
        self._send(ca.VersionRequest(0, 13), ca.HostNameRequest(host), ca.ClientNameRequest(user))

    def _send(self, *commands: Any) -> None:
        self._socket.sendall(b"".join(bytes(part) for part in self._circuit.send(*commands)))

    def _next(self, *kinds: type) -> Any:
        """The next answer of one of ``kinds``."""
        while True:
            for command in self._waiting:
                if isinstance(command, kinds):
                    self._waiting.remove(command)
                    return command
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("the server has closed the connection")
            commands, _ = self._circuit.recv(received)
            for command in commands:
                self._circuit.process_command(command)
                if isinstance(command, ca.AccessRightsResponse):
                    name = self._circuit.channels[command.cid].name
                    self.rights[name] = command.access_rights
            self._waiting += commands

    def say_user(self, user: str) -> None:
        self._send(ca.ClientNameRequest(user))

    def channel(self, name: str) -> ca.ClientChannel:
        if name not in self._channels:
            channel = ca.ClientChannel(name, self._circuit)
            self._send(channel.create())
            self._next(ca.CreateChanResponse)
            self._channels[name] = channel
        return self._channels[name]

    def put(self, name: str, value: str, *, notify: bool = True) -> int | str:
        """ECA code of a put of a string; of one without callback the text of the refusal."""
        channel = self.channel(name)
        self._send(
            channel.write([value], data_type=ca.ChannelType.STRING, data_count=1, notify=notify)
        )
        if not notify:
            return _text(self._next(ca.ErrorResponse))
        return self._next(ca.WriteNotifyResponse).header.parameter1

    def read(self, name: str) -> Any:
        """The value, or the text of the refusal."""
        self._send(self.channel(name).read(data_type=ca.ChannelType.DOUBLE))
        answer = self._next(ca.ReadNotifyResponse, ca.ErrorResponse)
        return _text(answer) if isinstance(answer, ca.ErrorResponse) else answer.data[0]

    def close(self) -> None:
        self._socket.close()


def _text(error: ca.ErrorResponse) -> str:
    return bytes(error.error_message).rstrip(b"\0").decode()
