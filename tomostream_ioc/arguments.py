"""What the program's command lines share: a parser, types of options, an error's line, the end."""

from __future__ import annotations

import argparse
import gc
import ipaddress
import logging
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)

#: exit code that a shell shows for a program that Ctrl-C ended
INTERRUPTED = 130
#: libraries count in 32 bits
_MOST = 2**31 - 1
#: 31 years; waits of 1e300 s are an error of the system
_MOST_S = 1_000_000_000


class Parser(argparse.ArgumentParser):
    """Raises ConfigError with one clear line instead of printing argparse's usage and line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see --help)")


def fail(error: Exception, program: str = "tomostream_ioc", exit_code: int = 2) -> int:
    """One clear line on stderr; the exit code, unless told otherwise of a wrong command line."""
    text = " ".join(str(error).split()) or type(error).__name__  # HDF5 says things in two lines
    print(f"{program}: {text}", file=sys.stderr)
    return exit_code


def end_quickly() -> None:
    """To be called last, when all is closed: spare the interpreter a search for garbage.

    At its end it goes through all objects of all libraries, which takes 0.6 s of an IOC.
    """
    gc.disable()
    gc.freeze()


def real(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
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


def integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def whole(text: str) -> int:
    value = integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def count(text: str) -> int:
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    if value > _MOST:
        raise argparse.ArgumentTypeError(f"{text} is more than {_MOST}")
    return value


def ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv4 address like 127.0.0.1") from None


def named(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def path(text: str) -> Path:
    return Path(named(text))


def folder(text: str) -> Path:
    """One that is there, or may be made later."""
    found = path(text)
    try:
        is_file = found.exists() and not found.is_dir()
    except OSError as error:  # a name that is too long, a folder above it that can't be read
        raise argparse.ArgumentTypeError(f"{text} can't be used: {error.strerror}") from None
    if is_file:
        raise argparse.ArgumentTypeError(f"{text} is a file, not a folder")
    return found


def warn_of_missing(option: str, folders: Iterable[Path]) -> None:
    """Say which folders of an option are not there, or can't be seen: they may come later."""
    for each in folders:
        if not os.path.exists(each):
            log.warning("%s %s: there is no such folder yet", option, each)


def seconds(text: str) -> float:
    """A time to wait: more than a clock of the system can count is refused."""
    value = real(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text}: give a positive number of seconds")
    if value > _MOST_S:
        raise argparse.ArgumentTypeError(f"{text} s is too long: give at most {_MOST_S}")
    return value


def port(text: str) -> int:
    value = integer(text)
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port number: give 1 to 65535")
    return value
