"""The group with a fake run, over CA and PVA, and p4p clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ca_ioc import LIMIT_S, PREFIX, Ioc
from p4p import Value
from p4p.client.thread import Context
from support.processes import wait_for

from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.pva_records import PvaRecords
from tomostream_ioc.epics.pva_sink import PvaSink
from tomostream_ioc.epics.server import IocContext


class RecordsIoc(Ioc):
    """As the program does it: one PVA server for slices and records (EPICS_PVAS_* say where)."""

    def __init__(self, prepare: Callable[[TomoStreamGroup], None] | None = None):
        super().__init__(prepare)
        self.served = PvaRecords()
        self.sink = PvaSink(interfaces=["127.0.0.1"], providers=self.served.providers)

    async def _serve(self) -> None:
        self.served.serve(self.group.records.values())
        server = IocContext(self.group.pvdb, ["127.0.0.1"], port=self.port)
        self._task = asyncio.create_task(server.run())
        try:
            await self._task
        finally:
            await self.served.close()

    def close(self) -> None:
        super().close()
        self.sink.close()


class PvaClient:
    """A p4p client that sees values as they are sent."""

    def __init__(self) -> None:
        self.context = Context("pva", nt=False)
        self._subscriptions: list[Any] = []

    def get(self, name: str, limit_s: float = LIMIT_S) -> Value:
        value = self.context.get(PREFIX + name, timeout=limit_s)
        assert isinstance(value, Value)
        return value

    def put(
        self,
        name: str,
        value: Any,
        *,
        field: str = "value",
        options: str = "",
        limit_s: float = LIMIT_S,
    ) -> None:
        """Raises RemoteError with the server's reason; ``options`` as in record[...]."""
        request = f"record[{options}]field({field})" if options else None
        self.context.put(PREFIX + name, {field: value}, request=request, timeout=limit_s, get=False)

    def choose(self, name: str, index: int, options: str = "", limit_s: float = LIMIT_S) -> None:
        self.put(name, index, field="value.index", options=options, limit_s=limit_s)

    def monitor(self, name: str) -> list[Value]:
        """What is posted, from the first value on; that is there when this returns."""
        seen: list[Value] = []

        def add(value: Value | Exception) -> None:
            if isinstance(value, Value):
                seen.append(value)

        self._subscriptions.append(self.context.monitor(PREFIX + name, add))
        wait_for(lambda: seen, what=f"{name} connects")
        return seen

    def close(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self.context.close()
