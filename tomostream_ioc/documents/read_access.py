"""Which files documents may name: whoever publishes says what this process reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tiled.utils import path_from_uri

from tomostream_ioc.errors import TrackingError


@dataclass(frozen=True, slots=True)
class ReadAccess:
    """Files in ``folders`` and below may be read; everything, where that is None.

    A path counts as what it leads to, symbolic links followed.
    """

    folders: tuple[Path, ...] | None = None

    @classmethod
    def below(cls, folders: Iterable[str | Path]) -> ReadAccess:
        return cls(tuple(Path(folder).expanduser().resolve() for folder in folders))

    def check(self, path: str | Path) -> Path:
        """The path as it is to be opened. Raises TrackingError: it may not be read."""
        if self.folders is None:
            return Path(path)
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(folder) for folder in self.folders):
            raise TrackingError(
                f"{path} may not be read: documents may name files in"
                f" {', '.join(map(str, self.folders)) or 'no folder'} (--read-from gives more)"
            )
        if real.exists() and not (real.is_file() or real.is_dir()):
            raise TrackingError(f"{path} may not be read: it is no file")
        return real

    def check_uri(self, uri: str) -> Path:
        """The path of a file's URI. Raises TrackingError: it may not be read, or is no file."""
        scheme = urlsplit(uri).scheme
        if scheme != "file":
            raise TrackingError(f"{uri} may not be read: it is no file's URI")
        return self.check(path_from_uri(uri))

    def guard(self, handlers: Mapping[str, Any]) -> dict[str, Any]:
        """The same handlers of Resource documents, each asking here before it opens a path."""
        if self.folders is None:
            return dict(handlers)
        return {spec: self._guarded(handler) for spec, handler in handlers.items()}

    def _guarded(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
            return handler(self.check(path), *args, **kwargs)

        return opened

    def __str__(self) -> str:
        if self.folders is None:
            return "any folder"
        return ", ".join(map(str, self.folders)) or "no folder"


ANYWHERE = ReadAccess()
