"""The image channel: frames out of NTNDArrays, from a queue as deep as a budget of bytes allows."""

from __future__ import annotations

import logging

from p4p import Value
from p4p.client.raw import Context

from tomostream_ioc.epics.ntndarray import IMAGE_FIELDS, frame_of, wire_bytes
from tomostream_ioc.epics.pva_reader import ChannelReader
from tomostream_ioc.errors import FrameError
from tomostream_ioc.model.control import ImageHandler

log = logging.getLogger(__name__)

_DEPTH_MIN, _DEPTH_MAX = 4, 1024


class ImageReader(ChannelReader):
    """Frames, each handed on as it comes, from a queue as deep as the budget of bytes allows.

    The size of a frame is unknown until one has come, so the subscription starts as deep as any
    and is replaced when the budget allows half or twice its depth: a burst that comes first is
    whole, and the budget is exceeded for milliseconds at most.
    """

    deadline_s: float | None = None

    def __init__(
        self,
        context: Context,
        channel: str,
        handler: ImageHandler,
        queue_bytes: int,
        max_frame_bytes: int,
    ):
        super().__init__(context, channel, self._request_of(_DEPTH_MAX), self)
        self._handler = handler
        self._queue_bytes = queue_bytes
        self._max_frame_bytes = max_frame_bytes
        self._depth = _DEPTH_MAX
        # ids that came while two subscriptions ran side by side, and those still to be skipped
        self._overlap: list[object] = []
        self._skip: set[object] = set()
        self._skip_left = 0

    @staticmethod
    def _request_of(depth: int) -> str:
        # never pipeline=true: a pvDatabase server then repeats and reorders frames
        return f"{IMAGE_FIELDS}record[queueSize={depth}]"

    def update(self, value: Value, first: bool) -> None:
        if self._is_repeat(value):
            return
        try:
            frame = frame_of(value, self._max_frame_bytes, initial=first)
            if frame is None and not first:
                raise FrameError("empty", "Frame without pixels")
        except FrameError as error:
            # the id of what the channel held before is no event in the count of frames
            unique_id = None if first else value.get("uniqueId")
            self._handler.on_frame_rejected(error.cause, str(error), unique_id)
        else:
            if frame is not None:
                self._handler.on_frame(frame)
        self._fit_depth(value)

    def due(self) -> None:
        pass

    def connection(self, connected: bool) -> None:
        self._skip_left = 0  # a server that has restarted counts its frames anew
        self._handler.on_connection("image", self.channel, connected)

    def switched(self) -> None:
        self._skip, self._skip_left = set(self._overlap), len(self._overlap)
        self._overlap = []

    def _is_repeat(self, value: Value) -> bool:
        """Whether the old subscription had brought this frame already, around a change of depth."""
        if self.switching:
            self._overlap.append(value.get("uniqueId"))
        elif self._skip_left:
            if value.get("uniqueId") in self._skip:
                self._skip_left -= 1
                return True
            self._skip_left = 0
        return False

    def _fit_depth(self, value: Value) -> None:
        n_bytes = wire_bytes(value)
        if n_bytes == 0 or self.switching:
            return
        depth = min(max(self._queue_bytes // n_bytes, _DEPTH_MIN), _DEPTH_MAX)
        if self._depth / 2 < depth < self._depth * 2:
            return
        log.info("%s: queue of %d frames of %d bytes", self.channel, depth, n_bytes)
        self._depth = depth
        self._overlap = [value.get("uniqueId")]
        self.resubscribe(self._request_of(depth))
