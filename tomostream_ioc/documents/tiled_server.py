"""A Tiled server of its own: to connect to it, and its runs as documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
from bluesky_tiled_plugins.exporters import json_seq_exporter
from tiled.client import from_uri

from tomostream_ioc.errors import TrackingError

_KEY = "give the key of the server in the environment variable TILED_API_KEY"


def connect(uri: str, api_key: str | None = None) -> Any:
    """The client of the server at ``uri``; ``api_key`` None for TILED_API_KEY.

    Raises TrackingError: nothing answers there, it is no Tiled server, or it refuses the key.
    """
    _answers(uri)
    try:
        return from_uri(uri, api_key=api_key)
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise TrackingError(f"The Tiled server at {uri} refuses the key: {_KEY}") from error
        raise TrackingError(f"No Tiled server is at {uri}: {error}") from error
    except RuntimeError as error:  # it asks for a key, and has got none
        raise TrackingError(f"The Tiled server at {uri} wants a key: {_KEY}") from error
    except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
        raise TrackingError(f"No Tiled server answers at {uri}: {error}") from error


def _answers(uri: str) -> None:
    """Tiled's client would go on asking for 45 s. Raises TrackingError: nobody is there."""
    try:
        httpx.get(uri, timeout=10.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TrackingError(f"No Tiled server answers at {uri}: {error}") from error


def documents_of(client: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents of the run ``client``, exported by the server or, where it can't, here.

    A server exports them only where its configuration names bluesky's exporter: `tiled serve
    catalog` does not.
    """
    formats = client.context.server_info.formats.get("BlueskyRun", ())
    if "application/json-seq" in formats:
        yield from client.documents(fill=False)
        return
    for record in asyncio.run(_exported(client)):
        item = json.loads(record.lstrip("\x1e"))
        yield item["name"], item["doc"]


async def _exported(client: Any) -> list[str]:
    async def as_it_is(adapter: Any) -> Any:
        return adapter  # the server lets through what this client may see

    records: AsyncIterator[str] = json_seq_exporter(
        "application/json-seq", _Node(client.base), dict(client.metadata), as_it_is
    )
    return [record async for record in records]


class _Node:
    """What the exporter, which is made to run in the server, asks a node for."""

    def __init__(self, client: Any):
        self._client = client
        self.specs = client.specs

    def metadata(self) -> dict[str, Any]:
        return dict(self._client.metadata)

    async def keys_range(self, offset: int, limit: int | None) -> list[str]:
        return list(self._client.keys())[offset : None if limit is None else offset + limit]

    async def lookup_adapter(self, path: list[str]) -> _Node:
        child = self._client["/".join(path)]
        return _Node(getattr(child, "base", child))

    async def read(self) -> Any:
        return self._client.read()

    async def data_sources(self, include_assets: bool) -> list[Any]:
        sources = self._client.include_data_sources().data_sources()
        return [
            SimpleNamespace(
                assets=source.assets,
                parameters=source.parameters,
                mimetype=source.mimetype,
                structure=SimpleNamespace(shape=self._client.shape),
            )
            for source in sources
        ]
