"""One PVA subscription that is drained by a thread of its own and comes back after a restart."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import Protocol

from p4p import Value
from p4p.client.raw import Context, Disconnected, Finished, Subscription

log = logging.getLogger(__name__)

_RETRY_S = 1.0  # after a server has refused or ended a subscription
_JOIN_S = 10.0


class Consumer(Protocol):
    """Told by a ChannelReader, always from the reader's thread."""

    #: time.monotonic() at which due() is wanted; None = not wanted
    deadline_s: float | None

    def update(self, value: Value, first: bool) -> None:
        """An update came; ``first`` when it is the first one since the channel connected."""
        ...

    def due(self) -> None: ...

    def connection(self, connected: bool) -> None: ...


class ChannelReader:
    """Subscribes to ``channel`` and hands each update to ``consumer``.

    p4p's own thread pool would make a frame wait behind a dark field; its raw subscriptions are
    drained here instead, and what the consumer raises ends neither thread nor subscription.
    """

    def __init__(self, context: Context, channel: str, request: str, consumer: Consumer):
        self.channel = channel
        self._context = context
        self._request = request
        self._consumer = consumer
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closing = False
        self._connected = False
        self._retry_at_s: float | None = None
        self._current: Subscription | None = None
        self._next: Subscription | None = None
        self._thread = threading.Thread(target=self._run, name=f"pva {channel}", daemon=True)

    def start(self) -> None:
        self._current = self._subscribe()
        self._thread.start()

    def close(self) -> None:
        """End the subscription; the consumer is not called once this returns."""
        self._closing = True
        self._wake.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)
            if self._thread.is_alive():
                log.error("%s: the receiver of its updates hangs", self.channel)
        for subscription in (self._current, self._next):
            if subscription is not None:
                subscription.close()

    def resubscribe(self, request: str) -> None:
        """Change the request, of the queue's depth above all. From the reader's thread only.

        The old subscription goes on until the new one has brought its first update, so nothing is
        lost; what both bring comes twice. ``switched`` is called in between.
        """
        self._request = request
        if self._next is not None:
            self._next.close()
        self._next = self._subscribe()

    @property
    def switching(self) -> bool:
        """True while two subscriptions run side by side."""
        return self._next is not None

    def switched(self) -> None:
        """The old subscription has brought its last update, the new one takes over."""

    def _subscribe(self) -> Subscription:
        # The event callback runs on the thread that reads the socket: it has to be next to nothing.
        wake = self._wake.put
        return self._context.monitor(self.channel, lambda: wake(None), request=self._request)

    def _run(self) -> None:
        while not self._closing:
            self._wait()
            if self._closing:
                return
            try:
                now_s = time.monotonic()
                deadline_s = self._consumer.deadline_s
                if deadline_s is not None and now_s >= deadline_s:
                    self._consumer.due()
                if self._retry_at_s is not None and now_s >= self._retry_at_s:
                    self._retry_at_s = None
                    if self._current is None:
                        self._current = self._subscribe()
                self._drain()
            except Exception:  # a defect of one update must not end all of them
                log.exception("%s: an update could not be handled", self.channel)
                self._wake.put(None)  # there may be more in the queue

    def _wait(self) -> None:
        due = [at_s for at_s in (self._consumer.deadline_s, self._retry_at_s) if at_s is not None]
        try:
            self._wake.get(timeout=max(min(due) - time.monotonic(), 0.0) if due else None)
        except Empty:
            return

    def _drain(self) -> None:
        while not self._closing:
            event = self._pop(self._current)
            if event is None and self._next is not None:
                event = self._take_over()
            if event is None:
                return
            self._handle(event)

    def _pop(self, subscription: Subscription | None) -> Value | Exception | None:
        return None if subscription is None else subscription.pop()

    def _take_over(self) -> Value | Exception | None:
        """The new subscription's first update, once the old one is empty."""
        event = self._pop(self._next)
        if event is None:
            return None
        # what came to the old one before the new one's first update is still to be had
        while not self._closing and (earlier := self._pop(self._current)) is not None:
            self._handle(earlier)
        if self._current is not None:
            self._current.close()
        self._current, self._next = self._next, None
        self.switched()
        return event

    def _handle(self, event: Value | Exception) -> None:
        if not isinstance(event, Exception):
            first = not self._connected
            if first:
                self._connected = True
                self._consumer.connection(True)
            self._consumer.update(event, first)
            return
        if self._connected:
            self._connected = False
            self._consumer.connection(False)
        # p4p searches for a lost channel by itself. But a server that stops in an orderly way (a
        # pvDatabase one) may end the subscription first, and then it never comes back by itself.
        if isinstance(event, Disconnected) and not isinstance(event, Finished):
            return
        if not isinstance(event, Finished):
            log.warning("%s: the server refuses the subscription: %s", self.channel, event)
        if self._current is not None:
            self._current.close()
            self._current = None
        self._retry_at_s = time.monotonic() + _RETRY_S
