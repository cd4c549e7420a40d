"""Images of a scan whose documents come by ZeroMQ, as a PointSource of live peak tracking."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from tomostream_ioc.documents.read_access import ReadAccess
from tomostream_ioc.documents.scan_reader import ScanReader
from tomostream_ioc.documents.transport.address import Address, prefix_bytes
from tomostream_ioc.documents.transport.receiver import DocumentReceiver
from tomostream_ioc.errors import ArmingError, ConfigError
from tomostream_ioc.model.crystal import PointHandler, ScanSetup

log = logging.getLogger(__name__)

_TICK_S = 0.2
_JOIN_S = 10.0


class DocumentPoints:
    """Listens to a proxy and hands each point's images on.

    Documents are read safely: pickled ones are refused, as by `serve`. One scan at a time: a new
    start ends the one before it.

    read_from : folders in which documents may name files of images
    """

    def __init__(self, read_from: Iterable[str | Path] = ()) -> None:
        self._access = ReadAccess.below(read_from)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, setup: ScanSetup, handler: PointHandler) -> str:
        try:
            address = Address.parse(setup.docs_address.strip(), "Crystal:DocsAddress")
            receiver = DocumentReceiver(address, prefix=prefix_bytes(setup.docs_prefix.strip()))
        except ConfigError as error:
            raise ArmingError(str(error)) from error
        reader = ScanReader(setup.image_key.strip(), handler, self._access)
        self._thread = threading.Thread(
            target=self._run, args=(receiver, reader, handler), name="documents", daemon=True
        )
        self._thread.start()
        return f"documents from {address}"

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self, receiver: DocumentReceiver, reader: ScanReader, handler: PointHandler) -> None:
        refused = 0
        try:
            while not self._closing.is_set():
                got = receiver.receive(_TICK_S)
                if got is not None:
                    reader.take(*got)
                if receiver.counts.refused > refused:
                    refused = receiver.counts.refused
                    handler.on_rejected(
                        "documents", "a message is no document, or a pickled one: see the log"
                    )
        except Exception:
            log.exception("No more documents are taken: put Crystal:Start to listen anew")
            handler.on_connection("The source of documents", False)
        finally:
            receiver.close()
