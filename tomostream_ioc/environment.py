"""What the network libraries need, checked first: wrong values are told in one clear line."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import caproto

from tomostream_ioc.errors import ConfigError

_LAST_PORT = 65535


def check_variables() -> None:
    """Raises ConfigError: a variable of EPICS in the environment can't be used."""
    try:
        variables = caproto.get_environment_variables()
    except ValueError as error:  # a number that is none
        raise ConfigError(str(error)) from error
    for name, value in variables.items():
        if not (name.startswith("EPICS_") and name.endswith("_PORT")):
            continue
        if not (str(value).isdecimal() and int(value) <= _LAST_PORT):
            raise ConfigError(f"Environment variable {name}: {value} is no port number")


def check_interfaces(addresses: Sequence[str]) -> None:
    """Raises ConfigError: this machine has no such IPv4 address."""
    for address in addresses:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                raise ConfigError(
                    f"--interfaces {address}: this machine has no such address; "
                    "`ip -4 address` lists those it has"
                ) from error
