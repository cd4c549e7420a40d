"""Commands on standard input: the same actions as over CA, for shells and parents without CA."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.sim.schedule import ScanType
from tomostream_ioc.sim.stream import Stream


class CommandReader:
    """Reads whole lines from standard input, without a thread that would block the exit."""

    def __init__(self, stream: Stream, stop: asyncio.Event, scan_type: ScanType) -> None:
        self._stream = stream
        self._stop = stop
        self._scan_type: ScanType = scan_type
        self._pending = b""

    def attach(self) -> None:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        if not data:  # end of input is no command: the stream goes on
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            words = line.decode("utf-8", "replace").split()
            if words:
                try:
                    self._obey(words[0], words[1:])
                except ConfigError as error:
                    print(f"tomostream_ioc.sim: {error}", file=sys.stderr, flush=True)

    def _obey(self, command: str, words: list[str]) -> None:
        stream = self._stream
        match command, words:
            case "start", []:
                stream.start_scan(self._scan_type)
            case "abort", []:
                stream.abort_scan()
            case "retake", ["dark" | "flat" as kind]:
                stream.retake(kind)
            case "binning", ["1" | "2" | "4" as binning]:
                stream.set_binning(int(binning))
            case "rate", [text]:
                stream.set_rate(_number(text, 1e6))
            case "loss", [text]:
                stream.plan.rates.loss = _number(text, 1.0)
            case "duplicates", [text]:
                stream.plan.rates.duplicates = _number(text, 1.0)
            case "disorder", [text]:
                stream.plan.rates.disorder = _number(text, 1.0)
            case "report", []:
                print(json.dumps(stream.report()), flush=True)
            case "quit", []:
                self._stop.set()
            case _:
                raise ConfigError(f"command {' '.join([command, *words])!r} is not understood")


def _number(text: str, largest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no number") from None
    if not 0 <= value <= largest:
        raise ConfigError(f"{text} is outside 0..{largest:g}")
    return value
