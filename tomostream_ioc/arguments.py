"""What the program's command lines share: a parser, types of options, and the line of an error."""

from __future__ import annotations

import argparse
import math
import sys
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


def port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port number")
    return value
