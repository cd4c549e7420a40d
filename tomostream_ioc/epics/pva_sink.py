"""The three slices over PVA: combined under ReconPVAName, alone under that name + X, Y, Z."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue

from p4p.client.raw import Cancelled, Context
from p4p.server import DynamicProvider, Server, StaticProvider

from tomostream_ioc.epics.pva_guard import PvaGuard
from tomostream_ioc.epics.pva_image_channel import ImageChannel, Shown
from tomostream_ioc.errors import ConfigError
from tomostream_ioc.model.control import Alarm, PostedListener
from tomostream_ioc.model.slices import CHANNEL_SUFFIXES, SliceMeta, Slices

log = logging.getLogger(__name__)

Provider = Mapping[str, object] | tuple[StaticProvider | DynamicProvider, int]

_CLASH_S = 0.4  # how long an answer is awaited before a name is taken as free
_JOIN_S = 10.0
_DEFAULT_PORT = 5075


class PvaSink:
    """A SliceSink: one PVA server, and a thread that posts the newest slices and skips the rest.

    ``interfaces`` are the addresses to serve on, all when empty; EPICS_PVAS_* of the environment
    hold for the rest. ``providers`` are further p4p providers with their order (or name ->
    SharedPV) for the same server. ``on_refusal`` is told from the sink's thread why the name of a
    set_output() can't be served, and '' once a later one is. Nobody looking at a channel, its
    image is not even put together.

    Raises ConfigError: ``channel`` can't be served, the server can't start, or its port is in use.
    """

    def __init__(
        self,
        channel: str = "",
        *,
        interfaces: Sequence[str] = (),
        providers: Sequence[
            Mapping[str, object] | tuple[StaticProvider | DynamicProvider, int]
        ] = (),
        crosshair: bool = True,
        clash_s: float = _CLASH_S,
        on_refusal: Callable[[str], None] | None = None,
    ):
        self._on_refusal = on_refusal
        self._clash_s = clash_s
        self._provider = StaticProvider("slices")
        conf = {"EPICS_PVAS_INTF_ADDR_LIST": " ".join(interfaces)} if interfaces else None
        try:
            self._server = Server(providers=[self._provider, *providers], conf=conf, useenv=True)
        except RuntimeError as error:
            raise ConfigError(f"The PV Access server can't start: {error}") from error
        served, asked = self._server.conf()["EPICS_PVAS_SERVER_PORT"], _asked_port(self._server)
        if asked and int(served) != asked:  # where it can't have a port, it takes any
            self._server.stop()
            raise ConfigError(
                f"PVA port {asked} is in use: another IOC may have it; set EPICS_PVAS_SERVER_PORT"
            )
        self._guard = PvaGuard(self._server)
        self._condition = threading.Condition()
        # ---- under the condition's lock
        self._mail: tuple[Slices, SliceMeta] | None = None
        self._new_output: str | None = None
        self._new_alarm = False
        self._alarm: Alarm | None = None
        self._crosshair = crosshair
        self._posting = False
        self._closing = False
        self._listener: PostedListener | None = None
        # ---- the thread's own, and the constructor's before it
        self._output = ""
        self._refusal = ""
        self._channels: list[ImageChannel] = []
        self._shown = Shown(crosshair=crosshair)
        self._thread = threading.Thread(target=self._run, name="pva slices", daemon=True)
        if channel:
            refusal = self._serve(channel)
            if refusal:
                self._end_server()
                raise ConfigError(refusal)
        self._thread.start()

    @property
    def output(self) -> str:
        """The name that is served now; '' when none is."""
        return self._output

    @property
    def refusal(self) -> str:
        """Why the newest name of set_output() is not served; '' when it is."""
        return self._refusal

    @property
    def bad_clients(self) -> int:
        """How many were disconnected since the start, because of messages without end."""
        return self._guard.closed

    @property
    def idle(self) -> bool:
        """See SliceSink.idle."""
        with self._condition:
            return self._mail is None and not self._posting

    def set_posted_listener(self, listener: PostedListener) -> None:
        with self._condition:
            self._listener = listener

    def publish(self, slices: Slices, meta: SliceMeta) -> None:
        with self._condition:
            self._mail = (slices, meta)
            self._condition.notify()

    def set_output(self, channel: str) -> None:
        """Serve under another name. Where it can't be, ``refusal`` says so, the old one stays."""
        with self._condition:
            self._new_output = channel
            self._condition.notify()

    def set_crosshair(self, on: bool) -> None:
        with self._condition:
            self._crosshair = on
            self._condition.notify()

    def set_alarm(self, alarm: Alarm | None) -> None:
        with self._condition:
            if alarm != self._alarm:
                self._alarm, self._new_alarm = alarm, True
                self._condition.notify()

    def close(self) -> None:
        """End the thread and the server; clients see the channels go."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)
        self._end_server()
        self._provider.close()

    def _end_server(self) -> None:
        self._guard.close()
        self._server.stop()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._posting = False
                self._condition.wait_for(self._something_to_do)
                if self._closing:
                    return
                mail, self._mail = self._mail, None
                output, self._new_output = self._new_output, None
                new_alarm, self._new_alarm = self._new_alarm, False
                alarm, crosshair, listener = self._alarm, self._crosshair, self._listener
                self._posting = mail is not None
            try:
                if output is not None:
                    self._tell(self._serve(output))
                if new_alarm:
                    self._shown = self._shown.with_alarm(alarm)
                    for channel in self._channels:
                        channel.set_alarm(self._shown)
                if mail is not None:
                    self._shown = self._shown.with_slices(*mail, crosshair)
                    for channel in self._channels:
                        channel.show(self._shown)
                    if listener is not None:
                        listener(mail[1], time.monotonic())
                elif crosshair != self._shown.crosshair:
                    self._shown = self._shown.with_crosshair(crosshair)
                    for channel in self._channels[:1]:  # lines are on the combined image only
                        channel.show(self._shown)
            except Exception:  # one set of slices must not end all others
                log.exception("The slices could not be posted")

    def _something_to_do(self) -> bool:
        return (
            self._closing
            or self._mail is not None
            or self._new_output is not None
            or self._new_alarm
            or self._crosshair != self._shown.crosshair
        )

    def _tell(self, refusal: str) -> None:
        if refusal:
            log.error("%s", refusal)
        if refusal != self._refusal:
            self._refusal = refusal
            if self._on_refusal is not None:
                self._on_refusal(refusal)

    def _serve(self, output: str) -> str:
        """Serve under this name instead of the old one; returns why it can't be, or ''."""
        output = output.strip()
        if output == self._output:
            return ""
        kept = f"{self._output} stays" if self._output else "no slices are served"
        if not output or any(character.isspace() for character in output):
            return f"ReconPVAName {output!r} is no name of a channel: {kept}"
        own = [self._output + suffix for suffix in CHANNEL_SUFFIXES] if self._output else []
        asked = [output + suffix for suffix in CHANNEL_SUFFIXES]
        taken = self._served_elsewhere([name for name in asked if name not in own])
        if taken:
            return f"PVA channel {taken} is served already, by another IOC or another part: {kept}"
        for name in own:
            self._provider.remove(name)  # its clients are disconnected
        self._output = output
        self._channels = [ImageChannel(suffix, self._shown) for suffix in CHANNEL_SUFFIXES]
        for name, channel in zip(asked, self._channels, strict=True):
            self._provider.add(name, channel.pv)
        return ""

    def _served_elsewhere(self, names: Sequence[str]) -> str:
        """The first of these names that a server answers for, '' when none does in time."""
        answers: SimpleQueue[tuple[str, object]] = SimpleQueue()

        def answered(name: str):
            return lambda result: answers.put((name, result))

        deadline_s = time.monotonic() + self._clash_s
        with Context("pva", useenv=True, nt=False) as context:
            operations = [
                # a field that is in no image: what counts is that somebody answers
                context.get(name, answered(name), request="field(codec)")
                for name in names
            ]
            try:
                while (left_s := deadline_s - time.monotonic()) > 0:
                    name, result = answers.get(timeout=left_s)
                    if not isinstance(result, Cancelled):
                        return name
            except Empty:
                pass
            finally:
                for operation in operations:
                    operation.close()
        return ""


def _asked_port(server: Server) -> int:
    """The TCP port that the environment asks for, as pvxs reads it; 0 for any."""
    # an address is shown with its port (which may be its own), all addresses without
    first = [*server.conf().get("EPICS_PVAS_INTF_ADDR_LIST", "").split(), ""][0]
    port = first.rpartition(":")[2]
    if port.isdecimal():
        return int(port)
    for name in ("EPICS_PVAS_SERVER_PORT", "EPICS_PVA_SERVER_PORT"):
        if name in os.environ:
            port = os.environ[name].strip()
            return int(port) if port.isdecimal() else _DEFAULT_PORT
    return _DEFAULT_PORT
