"""The seams of the product: what records, sources, sinks and the run know of each other.

Everything here is plain data and Protocols, so that the records run against a fake engine and the
engine against a fake stream, with nothing of EPICS or torch imported.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tomostream_ioc.model.center import CenterEstimate
from tomostream_ioc.model.counters import FrameCounts
from tomostream_ioc.model.frame import Frame
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import SliceMeta, Slices
from tomostream_ioc.model.state import RunState


class Severity(enum.IntEnum):
    """EPICS alarm severities."""

    NO_ALARM = 0
    MINOR = 1
    MAJOR = 2
    INVALID = 3


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is wrong with one record, in EPICS terms.

    ``status`` is an EPICS alarm status name (COMM, TIMEOUT, STATE, READ, UDF ...); ``message`` a
    sentence.
    """

    severity: Severity
    status: str
    message: str


@dataclass(frozen=True, slots=True)
class LensNames:
    """What belongs to a change of lens; '' where there is none."""

    mct_optics_prefix: str = ""
    sample_tomo_0deg: str = ""
    sample_tomo_90deg: str = ""
    sample_y: str = ""
    roi_plugin_prefix: str = ""


@dataclass(frozen=True, slots=True)
class ChannelNames:
    """The names that a run reads, snapshot from the records when it starts."""

    tomoscan_prefix: str  # CA prefix of the tomoScan IOC; '' = there is none
    image_pva_p_name: str  # CA record that holds the PVA plugin's prefix, or the image channel
    dark_pva: str
    flat_pva: str
    theta_pva: str
    lens: LensNames = LensNames()


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What an engine keeps where."""

    policy: str = ""  # all on device, raw on host or chunked
    n_bytes: int = 0  # set aside on the device that computes
    note: str = ""  # for ReconStatus; '' with the first policy


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A snapshot of the run for the records, taken at most ten times a second."""

    state: RunState = RunState.IDLE
    run_id: int = 0  # grows by one with every start that was asked for
    message: str = "Idle"  # ReconStatus, at most 255 bytes of UTF-8
    recon_time_s: float = 0.0
    buffer_size: str = "0/0"  # frames of the newest batch / capacity of the ring
    counts: FrameCounts = field(default_factory=FrameCounts)
    bad_pixels: int = 0
    memory: MemoryUse = field(default_factory=MemoryUse)
    frame_rate_hz: float = 0.0
    recon_rate_hz: float = 0.0
    latency_s: float = 0.0  # newest frame's arrival -> its slices posted
    # the axis that the last search found, in pixels of the frames as they are binned now
    center_found: float = 0.0
    center_confidence: float = 0.0  # 0..1, of that; 0 when the search failed
    # (n_rows, n_cols) of the frames that are reconstructed, binned; None before the first run
    frame_shape: tuple[int, int] | None = None
    # time.monotonic() of the engine thread's last sign of life; the watchdog is fed from it
    heartbeat_s: float = 0.0
    # record name without prefix -> its alarm; a record that is absent has none from the run
    alarms: Mapping[str, Alarm] = field(default_factory=dict)


class RunListener(Protocol):
    """Told by the run, from its own thread: implementations hand over to their own thread."""

    def run_ended(self, run_id: int) -> None:
        """The run with this id has ended or failed to start; the busy put completes."""
        ...

    def params_changed(self, params: ReconParams) -> None:
        """The run changed parameters by itself (a new frame size); the records follow."""
        ...

    def center_search_ended(self, search_id: int) -> None:
        """The search with this id has ended, or was refused; the busy put completes."""
        ...


class RunControl(Protocol):
    """What the records can ask of the run. No call blocks; all may come from any thread."""

    def set_listener(self, listener: RunListener) -> None: ...

    def start(self, names: ChannelNames, params: ReconParams) -> int:
        """Ask for a run and return its id; run_ended(id) will follow.

        While one is going on, its id is returned and nothing else happens.
        """
        ...

    def abort(self) -> None:
        """End the run, in whatever state it is; nothing happens when idle."""
        ...

    def set_params(self, params: ReconParams) -> None:
        """Take effect on the next slice, at once, also while no frame arrives."""
        ...

    def set_binning(self, binning: int) -> ReconParams | None:
        """Bin frames on arrival by 1, 2 or 4; a run that is on arms again by itself.

        Returns the parameters with axis and slices at the same place in the sample, in pixels of
        the frame that is binned so; None when none were set yet.

        Raises ParameterError: no such binning.
        """
        ...

    def find_center(self) -> int:
        """Look for the axis in the frames that are there; center_search_ended(id) will follow.

        Returns the search's id: that of the one that goes on, if there is one.
        """
        ...

    def set_center_auto(self, on: bool) -> None:
        """Put what is found into Center, and search once in a run when the ring is full."""
        ...

    def set_lens_sync(self, on: bool) -> None:
        """Keep the slices' crossing in view when the lens changes, by moving the sample."""
        ...

    def set_output(self, channel: str) -> None:
        """Serve the slices under this PVA name (and name + X, Y, Z)."""
        ...

    def set_crosshair(self, on: bool) -> None: ...

    def status(self) -> RunStatus: ...


class ImageHandler(Protocol):
    """Told by an image channel, from the transport's thread. Must return fast, never raise."""

    def on_frame(self, frame: Frame) -> None:
        """A whole frame; its pixels are valid during this call only."""
        ...

    def on_frame_rejected(self, cause: str, reason: str, unique_id: int | None = None) -> None:
        """A frame came that can't be decoded; ``cause`` groups equal reasons.

        ``unique_id`` is given where it could be read, so that the frame is not missed as well.
        """
        ...

    def on_connection(self, what: str, channel: str, connected: bool) -> None:
        """A channel came or went; ``what`` is image, dark, flat, theta or tomoscan."""
        ...


class StreamHandler(ImageHandler, Protocol):
    """Told by a stream source, as an ImageHandler is."""

    def on_field(self, kind: str, field: np.ndarray) -> None:
        """A new dark or flat (``kind``) field, float32 (n_rows, n_cols), owned by the receiver."""
        ...

    def on_field_rejected(self, kind: str, reason: str) -> None: ...

    def on_theta(self, theta_deg: np.ndarray) -> None:
        """The angle of every frame of the scan, float64 (n,), degrees, owned by the receiver."""
        ...

    def on_theta_rejected(self, reason: str) -> None: ...

    def on_frame_type(self, frame_type: str) -> None:
        """tomoScan's FrameType: DarkField, FlatField or Projection."""
        ...

    def on_first_projection_id(self, first_projid: int) -> None: ...


class CenterSearch(Protocol):
    """Looks for the axis of rotation in frames that it has copied."""

    def step(self) -> CenterEstimate | None:
        """Go on for a small part of a second; the result when it is there."""
        ...


class Engine(Protocol):
    """Turns frames into slices; used by one thread at a time (see recon.engine.OrthoEngine)."""

    @property
    def n_filled(self) -> int:
        """Slots of the ring that hold a frame."""
        ...

    @property
    def bad_pixels(self) -> int: ...

    @property
    def has_flat(self) -> bool:
        """False while a uniform flat stands in for the one that has not come."""
        ...

    @property
    def memory(self) -> MemoryUse: ...

    def set_dark(self, dark: np.ndarray) -> None: ...

    def set_flat(self, flat: np.ndarray) -> None: ...

    def push(self, frames: np.ndarray, theta_deg: np.ndarray, slots: np.ndarray) -> None: ...

    def reconstruct(self, params: ReconParams) -> Slices: ...

    def center_search(self, params: ReconParams) -> CenterSearch:
        """Begin to look for the axis, around ortho_z.

        Raises CenterError: the frames that are there do not do.
        """
        ...

    def release(self) -> None:
        """Give the memory back; the engine is not used again."""
        ...


class StreamSource(Protocol):
    """Where frames, fields and angles come from."""

    def open(self, names: ChannelNames, handler: StreamHandler, timeout_s: float) -> str:
        """Subscribe to everything; returns the image channel's name.

        Blocks for at most about ``timeout_s`` while it asks over CA which channel carries the
        images. Channels that do not answer yet are subscribed all the same: the handler hears of
        them by on_connection.

        Raises ArmingError: a name is empty, or the tomoScan records do not answer; it says which.
        """
        ...

    def cancel(self) -> None:
        """End an open() that is waiting, which then raises ArmingError. Never blocks."""
        ...

    def close(self) -> None:
        """End every subscription; after it returns no handler is called any more."""
        ...


class PostedListener(Protocol):
    def __call__(self, meta: SliceMeta, posted_s: float) -> None:
        """Slices were posted at time.monotonic() ``posted_s``; called from the sink's thread."""
        ...


class SliceSink(Protocol):
    """Where slices go. Never holds the caller back: the latest set wins."""

    @property
    def idle(self) -> bool:
        """True when nothing waits to be posted."""
        ...

    def set_posted_listener(self, listener: PostedListener) -> None: ...

    def publish(self, slices: Slices, meta: SliceMeta) -> None: ...

    def set_output(self, channel: str) -> None: ...

    def set_crosshair(self, on: bool) -> None: ...

    def set_alarm(self, alarm: Alarm | None) -> None:
        """Alarm on the served channels; the last slices stay."""
        ...

    def close(self) -> None: ...
