"""host:port of ZeroMQ sockets."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from tomostream_ioc.errors import ConfigError

LOOPBACK = "127.0.0.1"
#: blanks, and what belongs to another part of a URI
_NOT_IN_HOSTS = re.compile(r"[\s/@?#*]")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address; ``host`` is a name or an IP address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str = "address") -> Address:
        """``host:port``, ``tcp://host:port``, or a port alone on this host. Raises ConfigError."""
        host, colon, port = text.removeprefix("tcp://").rpartition(":")
        if not colon:
            host = LOOPBACK
        is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
        if not is_port or not host or _NOT_IN_HOSTS.search(host):
            raise ConfigError(f"{option} {text}: give HOST:PORT, for example localhost:5567")
        return cls(host.strip("[]"), int(port))

    @property
    def uri(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def prefix_bytes(text: str, option: str = "--prefix") -> bytes:
    """The first word of each message. Raises ConfigError: it would be more than one word."""
    if any(character.isspace() for character in text):
        raise ConfigError(f"{option} {text!r}: a prefix has no blanks")
    return text.encode()
