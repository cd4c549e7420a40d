"""How a user names a run of a database."""

from __future__ import annotations

from collections.abc import Iterable

from tomostream_ioc.errors import TrackingError


def resolve_uid(runs: Iterable[str], text: str) -> str:
    """The uid among ``runs`` that starts with ``text``; "-1" is the last, "-2" the one before.

    Raises TrackingError: no run is called so, or several are.
    """
    uids = list(runs)
    if not uids:
        raise TrackingError("The database has no runs yet.")
    if text in uids:
        return text
    if text.startswith("-"):
        try:
            return uids[int(text)]
        except (ValueError, IndexError) as error:
            raise TrackingError(
                f"{text} is no run: -1 is the last of {len(uids)}, -{len(uids)} the first."
            ) from error
    found = [uid for uid in uids if text and uid.startswith(text)]
    if not found:
        raise TrackingError(
            f"No run's uid starts with {text!r}. The last is {uids[-1]}, of {len(uids)}."
        )
    if len(found) > 1:
        some = ", ".join(found[:5])
        raise TrackingError(
            f"{len(found)} runs' uids start with {text!r}: {some}. Give more of it."
        )
    return found[0]
