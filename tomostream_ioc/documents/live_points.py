"""Images of a scan whose documents come by ZeroMQ, as a PointSource of live peak tracking."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from tomostream_ioc.documents.read_access import ReadAccess
from tomostream_ioc.documents.scan_reader import ScanReader
from tomostream_ioc.documents.transport.address import Address, prefix_bytes
from tomostream_ioc.documents.transport.curve import CurveKeys, warn_if_open
from tomostream_ioc.documents.transport.receiver import DocumentReceiver
from tomostream_ioc.errors import ArmingError, ConfigError
from tomostream_ioc.model.crystal import PointHandler, ScanSetup

log = logging.getLogger(__name__)

_TICK_S = 0.2
#: so long a proxy may take to answer, or to come back, before it is said
_PATIENCE_S = 3.0
_JOIN_S = 10.0


class DocumentPoints:
    """Listens to a proxy and hands each point's images on.

    Documents are read safely: pickled ones are refused, as by `serve`. One scan at a time: a new
    start ends the one before it.

    read_from : folders in which documents may name files of images
    keys : CURVE keys of this client, or None; read at each `open`
    """

    def __init__(self, read_from: Iterable[str | Path] = (), keys: CurveKeys | None = None) -> None:
        self._access = ReadAccess.below(read_from)
        self._keys = keys
        self._what = ""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, setup: ScanSetup, handler: PointHandler) -> str:
        try:
            address = Address.parse(setup.docs_address.strip(), "Crystal:DocsAddress")
            prefix = prefix_bytes(setup.docs_prefix.strip())
            receiver = DocumentReceiver(address, prefix=prefix, keys=self._keys)
        except ConfigError as error:
            raise ArmingError(str(error)) from error
        warn_if_open(address, self._keys)
        self._what = f"documents from {address}"
        reader = ScanReader(setup.image_key.strip(), handler, self._access)
        self._thread = threading.Thread(
            target=self._run, args=(receiver, reader, handler), name="documents", daemon=True
        )
        self._thread.start()
        return self._what

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self, receiver: DocumentReceiver, reader: ScanReader, handler: PointHandler) -> None:
        refused, trouble = 0, ""
        patience = _Patience(receiver)
        try:
            while not self._closing.is_set():
                got = receiver.receive(_TICK_S)
                if (now := patience.trouble()) != trouble:
                    trouble = now
                    handler.on_connection(f"no {self._what}: {trouble}" if trouble else "")
                if got is not None:
                    reader.take(*got)
                if receiver.counts.refused > refused:
                    refused = receiver.counts.refused
                    handler.on_rejected(
                        "documents", "a message is no document, or a pickled one: see the log"
                    )
        except Exception:
            log.exception("Listening to %s has failed", self._what)
            handler.on_connection(
                f"no {self._what} are taken any more after an error, see the log: put"
                " Crystal:Abort, then Crystal:Start"
            )
        finally:
            receiver.close()


class _Patience:
    """Says that a proxy does not answer once it had time to."""

    def __init__(self, receiver: DocumentReceiver):
        self._receiver = receiver
        self._fine_s = time.monotonic()

    def trouble(self) -> str:
        """Why no document can come, or ""."""
        now = time.monotonic()
        if self._receiver.connected:
            self._fine_s = now
        late = now - self._fine_s > _PATIENCE_S
        return self._receiver.refusal or ("no proxy answers there" if late else "")
