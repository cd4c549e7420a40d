"""Image, dark, flat and theta over PVA, and tomoScan's records over CA, as one StreamSource."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from p4p.client.raw import Context

from tomostream_ioc.epics.pva_fields import FieldConsumer, ThetaConsumer
from tomostream_ioc.epics.pva_image import ImageReader
from tomostream_ioc.epics.pva_reader import ChannelReader
from tomostream_ioc.epics.tomoscan import TomoScan
from tomostream_ioc.errors import ArmingError
from tomostream_ioc.model.control import ChannelNames, StreamHandler

#: how long the angles may hold the images back
_THETA_FIRST_S = 0.5
# Deep enough for the updates of one dark field (value, sizex, sizey): where its queue is full, a
# pvDatabase server holds the last update back until the next one comes.
_SIDE_REQUEST = "record[queueSize=16]"


class _Opening:
    """One open() that is going on, and how to wake it from what it waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._wake: Callable[[], None] | None = None

    def wakes_by(self, wake: Callable[[], None] | None) -> None:
        """From now on cancel() calls this. Raises ArmingError when it was called already."""
        with self._lock:
            self._wake = wake
            if self._cancelled:
                raise ArmingError("The start was aborted")

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._wake is not None:
                self._wake()


class PvaSource:
    """A StreamSource on p4p and caproto.

    ``queue_bytes`` bounds the frames that wait between network and handler; a frame larger than
    ``max_frame_bytes`` after decompression is rejected. ``conf`` overrides EPICS_PVA_* of the
    environment. Nothing is opened before open(); the PVA client then stays for later runs, until
    shutdown().
    """

    def __init__(
        self,
        *,
        queue_bytes: int = 512 << 20,
        max_frame_bytes: int = 1 << 30,
        conf: Mapping[str, str] | None = None,
    ):
        self._queue_bytes = queue_bytes
        self._max_frame_bytes = max_frame_bytes
        self._conf = dict(conf) if conf else None
        self._lock = threading.Lock()
        self._context: Context | None = None
        self._readers: list[ChannelReader] = []
        self._tomoscan: TomoScan | None = None
        self._opening: _Opening | None = None  # not under the lock, which open() holds

    def open(self, names: ChannelNames, handler: StreamHandler, timeout_s: float) -> str:
        """See StreamSource.open; a dark or flat field without a name is left out.

        A cancel() or close() from another thread makes it raise ArmingError at once.
        """
        for value, record in (
            (names.image_pva_p_name, "ImagePVAPName"),
            (names.theta_pva, "ThetaPVAName"),
        ):
            if not value.strip():
                raise ArmingError(f"{record} is empty: give the name of the channel")
        opening = self._opening = _Opening()
        with self._lock:
            self._close()
            if self._context is None:
                self._context = Context("pva", conf=self._conf, useenv=True, nt=False)
            self._tomoscan = TomoScan(names.tomoscan_prefix.strip(), handler)
            try:
                opening.wakes_by(self._tomoscan.cancel)
                image = self._tomoscan.open(names.image_pva_p_name.strip(), timeout_s)
                self._subscribe(self._context, names, image, handler, opening)
                opening.wakes_by(None)
            except BaseException:
                self._close()
                raise
            return image

    def cancel(self) -> None:
        """End an open() that is going on with ArmingError; never blocks.

        What is open stays so, and a later open() is not affected.
        """
        opening = self._opening
        if opening is not None:
            opening.cancel()

    def close(self) -> None:
        """See StreamSource.close."""
        self.cancel()  # an open() that waits holds the lock
        with self._lock:
            self._close()

    def shutdown(self) -> None:
        """close(), and give the PVA client back too; open() works again afterwards."""
        self.close()
        with self._lock:
            context, self._context = self._context, None
            if context is not None:
                context.close()

    def _subscribe(
        self,
        context: Context,
        names: ChannelNames,
        image: str,
        handler: StreamHandler,
        opening: _Opening,
    ) -> None:
        # dark, flat and theta first: they should be there when the first frame comes
        theta = ThetaConsumer(names.theta_pva.strip(), handler)
        for consumer in (
            FieldConsumer("dark", names.dark_pva.strip(), handler, self._max_frame_bytes),
            FieldConsumer("flat", names.flat_pva.strip(), handler, self._max_frame_bytes),
            theta,
        ):
            if consumer.channel:  # a run starts without fields
                self._start(ChannelReader(context, consumer.channel, _SIDE_REQUEST, consumer))
        # a frame without its angle would have to be rejected
        opening.wakes_by(theta.told.set)
        theta.told.wait(_THETA_FIRST_S)
        opening.wakes_by(None)
        self._start(ImageReader(context, image, handler, self._queue_bytes, self._max_frame_bytes))

    def _start(self, reader: ChannelReader) -> None:
        self._readers.append(reader)
        reader.start()

    def _close(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.close()
        tomoscan, self._tomoscan = self._tomoscan, None
        if tomoscan is not None:
            tomoscan.close()
