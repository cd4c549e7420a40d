"""A sender's process, a recorder of what a source says, and the names that they share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from support.processes import Child, wait_for

from tomostream_ioc.epics.pva_source import PvaSource
from tomostream_ioc.model.control import ChannelNames
from tomostream_ioc.model.frame import Frame

HERE = Path(__file__).parent


class Script(Child):
    """A sender script: its commands are lines, each answered by ok or error."""

    def __init__(self, script: str, env: dict[str, str], *options: str):
        super().__init__([str(HERE / script), *options], env)
        self.expect("ready", 30.0)

    def do(self, line: str) -> None:
        self.say(line)
        answer = self.expect("ok", 30.0)
        assert answer == f"ok {line}"

    def stop(self) -> None:
        self.say("stop")
        self.wait()


@dataclass
class Recorder:
    """A StreamHandler that keeps all it hears; frames are copied, as their pixels are on loan."""

    frames: list[Frame] = field(default_factory=list)
    rejected: list[tuple[str, str, int | None]] = field(default_factory=list)
    fields: list[tuple[str, np.ndarray]] = field(default_factory=list)
    fields_rejected: list[tuple[str, str]] = field(default_factory=list)
    thetas: list[np.ndarray] = field(default_factory=list)
    thetas_rejected: list[str] = field(default_factory=list)
    frame_types: list[str] = field(default_factory=list)
    first_ids: list[int] = field(default_factory=list)
    connections: list[tuple[str, str, bool]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def on_frame(self, frame: Frame) -> None:
        self.threads.add(threading.current_thread().name)
        assert not frame.pixels.flags.writeable or frame.pixels.base is not None
        self.frames.append(replace(frame, pixels=frame.pixels.copy()))

    def on_frame_rejected(self, cause: str, reason: str, unique_id: int | None = None) -> None:
        self.rejected.append((cause, reason, unique_id))

    def on_field(self, kind: str, field: np.ndarray) -> None:
        self.threads.add(threading.current_thread().name)
        self.fields.append((kind, field))

    def on_field_rejected(self, kind: str, reason: str) -> None:
        self.fields_rejected.append((kind, reason))

    def on_theta(self, theta_deg: np.ndarray) -> None:
        self.thetas.append(theta_deg)

    def on_theta_rejected(self, reason: str) -> None:
        self.thetas_rejected.append(reason)

    def on_frame_type(self, frame_type: str) -> None:
        self.frame_types.append(frame_type)

    def on_first_projection_id(self, first_projid: int) -> None:
        self.first_ids.append(first_projid)

    def on_connection(self, what: str, channel: str, connected: bool) -> None:
        self.connections.append((what, channel, connected))

    @property
    def ids(self) -> list[int]:
        return [frame.unique_id for frame in self.frames]

    def connected(self, what: str) -> bool | None:
        """The newest word about this channel."""
        states = [state for name, _, state in self.connections if name == what]
        return states[-1] if states else None


def names(**changes: Any) -> ChannelNames:
    """The sender's channels, without tomoScan."""
    return replace(
        ChannelNames("", "T:Image", "T:StreamDarkFields", "T:StreamFlatFields", "T:StreamTheta"),
        **changes,
    )


def opened(source: PvaSource, timeout_s: float = 0.2, **changes: Any) -> Recorder:
    """A recorder of a run whose four channels are connected."""
    recorder = Recorder()
    source.open(names(**changes), recorder, timeout_s)
    for what in ("image", "dark", "flat", "theta"):
        wait_for(lambda what=what: recorder.connected(what), 10.0, f"{what} connects")
    return recorder
