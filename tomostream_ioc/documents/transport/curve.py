"""CURVE keys of ZeroMQ: who may publish and listen, and encryption, from a folder of keys."""

from __future__ import annotations

import logging
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from tomostream_ioc.documents.transport.address import Address
from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)

_SERVER, _CLIENT = "server", "client"
_CLIENTS = "clients"
_KEY_BYTES = 32
_MAKE = "python -m tomostream_ioc.documents keys DIR makes keys"


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """Keys in ``folder``, as zmq.auth writes them.

    The proxy, which binds, needs `server.key_secret`, and in `clients/` the public key of each
    client that it lets in. Whoever connects needs `server.key`, `client.key` and
    `client.key_secret`.
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> CurveKeys:
        """New keys of the proxy and of one client that may connect.

        Raises ConfigError: there are keys already, or the folder can't be written.
        """
        keys = cls(folder)
        try:
            (folder / _CLIENTS).mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            for name in (_SERVER, _CLIENT):
                if (folder / f"{name}.key_secret").exists():
                    raise ConfigError(f"{folder} holds {name}.key_secret already: nothing written")
            for name in (_SERVER, _CLIENT):
                _, secret = zmq.auth.create_certificates(folder, name)
                Path(secret).chmod(0o600)
            public = (folder / f"{_CLIENT}.key").read_bytes()
            (folder / _CLIENTS / f"{_CLIENT}.key").write_bytes(public)
        except OSError as error:
            raise ConfigError(f"Keys can't be written to {folder}: {error}") from error
        return keys

    def check(self, *, binds: bool) -> None:
        """Raises ConfigError: the folder or a key that is needed is missing or can't be read."""
        if not os.path.isdir(self.folder):  # which raises nothing, whatever the name
            raise ConfigError(f"--curve-keys {self.folder}: there is no such folder ({_MAKE})")
        if binds:
            self._secret(_SERVER)
            if not list((self.folder / _CLIENTS).glob("*.key")):
                raise ConfigError(f"{self.folder / _CLIENTS} holds no .key of a client to let in")
        else:
            self._secret(_CLIENT)
            self._load(f"{_SERVER}.key")

    def connect(self, socket: zmq.Socket) -> None:
        """Make ``socket``, before it connects, show the client's key and expect the server's."""
        socket.curve_publickey, socket.curve_secretkey = self._secret(_CLIENT)
        socket.curve_serverkey = self._load(f"{_SERVER}.key")[0]

    def bind(self, socket: zmq.Socket) -> None:
        """Make ``socket``, before it binds, let in only clients that `authenticator` knows."""
        socket.curve_publickey, socket.curve_secretkey = self._secret(_SERVER)
        socket.curve_server = True

    def authenticator(self, context: zmq.Context) -> ThreadAuthenticator:
        """Lets in the clients of all sockets in ``context``. Started; to be stopped by the caller.

        One for the whole context: ZeroMQ allows no second.
        """
        authenticator = ThreadAuthenticator(context)
        authenticator.start()
        authenticator.configure_curve(domain="*", location=str(self.folder / _CLIENTS))
        return authenticator

    def _secret(self, name: str) -> tuple[bytes, bytes]:
        public, secret = self._load(f"{name}.key_secret")
        if secret is None:
            raise ConfigError(f"{self.folder / name}.key_secret holds no secret key")
        return public, secret

    def _load(self, name: str) -> tuple[bytes, bytes | None]:
        path = self.folder / name
        if not os.path.isfile(path):
            raise ConfigError(f"There is no CURVE key {path} ({_MAKE})")
        try:
            public, secret = zmq.auth.load_certificate(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"The CURVE key {path} can't be read: {error} ({_MAKE})") from error
        if not all(_is_key(key) for key in (public, secret) if key is not None):
            raise ConfigError(f"{path} holds no CURVE key of 40 characters ({_MAKE})")
        return public, secret


def _is_key(text: bytes) -> bool:
    """Whether ZeroMQ takes it."""
    try:
        return len(z85.decode(text)) == _KEY_BYTES
    except (KeyError, ValueError, struct.error):
        return False


def warn_if_open(address: Address, keys: CurveKeys | None) -> None:
    """Say that documents go beyond this host without keys, open to all on the way."""
    if keys is None and not address.is_loopback:
        log.warning(
            "%s is not this host and there are no --curve-keys: documents are neither encrypted nor"
            " is it known who sends them",
            address,
        )
