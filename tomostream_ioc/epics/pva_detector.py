"""Images of a diffraction detector over PVA, as a PointSource."""

from __future__ import annotations

from collections.abc import Mapping

from p4p.client.raw import Context

from tomostream_ioc.epics.pva_image import ImageReader
from tomostream_ioc.model.crystal import PointHandler, ScanSetup
from tomostream_ioc.model.frame import Frame


class PvaDetector:
    """Subscribes to an areaDetector's NTNDArray channel.

    ``queue_bytes`` bounds the images that wait between network and handler; one larger than
    ``max_frame_bytes`` after decompression is rejected. A detector that is not there yet, or goes
    away, is waited for.
    """

    def __init__(
        self,
        *,
        queue_bytes: int = 256 << 20,
        max_frame_bytes: int = 1 << 30,
        conf: Mapping[str, str] | None = None,
    ):
        self._queue_bytes = queue_bytes
        self._max_frame_bytes = max_frame_bytes
        self._conf = dict(conf) if conf else None
        self._context: Context | None = None
        self._reader: ImageReader | None = None

    def open(self, setup: ScanSetup, handler: PointHandler) -> str:
        channel = setup.image_pva.strip()
        self._context = Context("pva", conf=self._conf, useenv=True, nt=False)
        told = _Told(handler)
        self._reader = ImageReader(
            self._context, channel, told, self._queue_bytes, self._max_frame_bytes
        )
        self._reader.start()
        return channel

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._context is not None:
            self._context.close()
        self._reader = self._context = None


class _Told:
    """What an ImageReader says, to a PointHandler."""

    def __init__(self, handler: PointHandler):
        self._handler = handler

    def on_frame(self, frame: Frame) -> None:
        self._handler.on_frame(frame)

    def on_frame_rejected(self, cause: str, reason: str, unique_id: int | None = None) -> None:
        self._handler.on_rejected(cause, reason, unique_id)

    def on_connection(self, what: str, channel: str, connected: bool) -> None:
        self._handler.on_connection("" if connected else f"{channel} is disconnected")
