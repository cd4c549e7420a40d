"""What the program's command lines share: a parser, types of options, an error's line, the end."""

from __future__ import annotations

import argparse
import gc
import ipaddress
import math
import sys
from pathlib import Path
from typing import NoReturn

from tomostream_ioc.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises ConfigError with one clear line instead of printing argparse's usage and line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see --help)")


def fail(error: Exception, program: str = "tomostream_ioc", exit_code: int = 2) -> int:
    """One clear line on stderr; the exit code, unless told otherwise of a wrong command line."""
    text = str(error) or type(error).__name__
    print(f"{program}: {text}", file=sys.stderr)
    return exit_code


def end_quickly() -> None:
    """To be called last, when all is closed: spare the interpreter a search for garbage.

    At its end it goes through all objects of all libraries, which takes 0.6 s of an IOC.
    """
    gc.disable()
    gc.freeze()


def real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is no finite number")
    return value


def not_negative(text: str) -> float:
    value = real(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive(text: str) -> float:
    value = real(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return value


def probability(text: str) -> float:
    value = real(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no probability: give 0 to 1")
    return value


def whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv4 address like 127.0.0.1") from None


def path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port number")
    return value
