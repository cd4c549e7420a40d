"""Who may read and write: an EPICS access security file, and what it grants to a client.

    security = read_access_file("tomoStream.acf")
    security.grant("DEFAULT", 0, address="164.54.1.2", user="beamline").right

A client's address is that of its socket: the host name that clients send is never looked at. Its
user name is what the client says it is; neither Channel Access nor PV Access proves it.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tomostream_ioc.epics.database import Reader

DEFAULT_GROUP = "DEFAULT"
_CACHED_CLIENTS = 4096
_NO_CONDITION = "conditions on PVs are not supported: use UAG and HAG"

log = logging.getLogger(__name__)

Resolver = Callable[[str], Iterable[str]]


class Right(enum.IntEnum):
    """What a client may do; each includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2


class Grant(NamedTuple):
    """What a client may do with a field; ``trapped``: its puts are to be logged."""

    right: Right
    trapped: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """RULE of a group. ``users`` and ``addresses`` None: whoever it is."""

    level: int
    right: Right
    trapped: bool = False
    users: frozenset[str] | None = None
    addresses: frozenset[str] | None = None

    def holds(self, level: int, address: str, user: str) -> bool:
        return (
            level <= self.level
            and (self.users is None or user in self.users)
            and (self.addresses is None or address in self.addresses)
        )


class AccessSecurity:
    """The groups (ASG) of a file and their rules. Knows nothing of records."""

    def __init__(self, groups: Mapping[str, Iterable[Rule]]):
        self._groups = {name: tuple(rules) for name, rules in groups.items()}
        # clients choose their user name: what is kept of them is bounded
        self._grant = functools.lru_cache(_CACHED_CLIENTS)(self._work_out)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self._groups)

    @property
    def is_readable(self) -> bool:
        """True when everybody may read every record, whoever and wherever he is."""
        groups = (*self._groups, DEFAULT_GROUP)
        return all(self.grant(group, 1, "", "").right >= Right.READ for group in groups)

    def grant(self, group: str, level: int, address: str, user: str) -> Grant:
        """What the rules of ``group`` give to a client.

        ``level`` is that of the field: 0 for what an operator changes (VAL), else 1. A rule of
        level 1 is for both. ``address`` is an IP address as `plain_address` gives it. A group
        that is not in the file, or '', is DEFAULT.
        """
        return self._grant(group, level, address, user)

    def _work_out(self, group: str, level: int, address: str, user: str) -> Grant:
        found = Grant(Right.NONE)
        rules = self._groups.get(group)
        if rules is None:
            rules = self._groups.get(DEFAULT_GROUP, ())
        for rule in rules:
            if rule.right > found.right and rule.holds(level, address, user):
                found = Grant(rule.right, rule.trapped)
        return found


#: without a file, as on every IOC
OPEN = AccessSecurity({DEFAULT_GROUP: (Rule(1, Right.WRITE),)})


def plain_address(peer: str) -> str:
    """The IP address in ``127.0.0.1``, ``127.0.0.1:5064`` or ``[::1]:5075``.

    An IPv4 address in IPv6 clothes is that IPv4 address. Raises ValueError.
    """
    host = peer
    if peer.startswith("["):
        host = peer[1:].partition("]")[0]
    elif peer.count(":") == 1:
        host = peer.partition(":")[0]
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def resolve(host: str) -> list[str]:
    """The addresses of a host name or an address. Raises OSError."""
    return sorted({plain_address(str(found[4][0])) for found in socket.getaddrinfo(host, None)})


def read_access_file(path: str | os.PathLike[str], resolver: Resolver = resolve) -> AccessSecurity:
    """An EPICS access security configuration file; host names are resolved now, once.

    A host without an address matches nobody and is warned of. Raises ConfigError, with file:line:
    what is no such file, or asks for what is not supported (INP and CALC).
    """
    return _AccessFile(Reader(path), resolver).read()


class _AccessFile:
    """The definitions of one file, in its order: what a rule names comes before it."""

    def __init__(self, reader: Reader, resolver: Resolver):
        self._reader, self._resolver = reader, resolver
        self._users: dict[str, frozenset[str]] = {}
        self._addresses: dict[str, frozenset[str]] = {}
        self._groups: dict[str, list[Rule]] = {}

    def read(self) -> AccessSecurity:
        reader = self._reader
        while not reader.done:
            keyword = reader.value()
            if keyword == "UAG":
                name = self._new_name(keyword, self._users)
                self._users[name] = frozenset(self._members())
            elif keyword == "HAG":
                name = self._new_name(keyword, self._addresses)
                hosts = self._members()
                self._addresses[name] = frozenset(
                    address for host in hosts for address in self._resolved(host)
                )
            elif keyword == "ASG":
                name = self._new_name(keyword, self._groups)
                self._groups[name] = self._rules()
            else:
                raise reader.error(f"UAG, HAG or ASG is expected, not {keyword!r}")
        if DEFAULT_GROUP not in self._groups:
            log.warning(
                "%s has no ASG(%s): records of no other group can't be read or written",
                reader.path,
                DEFAULT_GROUP,
            )
        return AccessSecurity(self._groups)

    def _new_name(self, keyword: str, known: Mapping[str, object]) -> str:
        names = self._names()
        if len(names) != 1:
            raise self._reader.error(f"{keyword} has one name, not {len(names)}")
        if names[0] in known:
            raise self._reader.error(f"{keyword}({names[0]}) is there already")
        return names[0]

    def _names(self) -> list[str]:
        """``(a, "b")``"""
        reader = self._reader
        reader.expect("(")
        names = [reader.value()]
        while reader.skip(","):
            names.append(reader.value())
        reader.expect(")")
        return names

    def _members(self) -> list[str]:
        """``{ a, b }``, or nothing at all."""
        return self._reader.values() if self._reader.peek() == "{" else []

    def _resolved(self, host: str) -> Iterable[str]:
        try:
            return self._resolver(host)
        except (OSError, ValueError):
            log.warning("%s: host %r has no address: matches nobody", self._reader.path, host)
            return ()

    def _rules(self) -> list[Rule]:
        reader = self._reader
        rules: list[Rule] = []
        if not reader.skip("{"):
            return rules
        while not reader.skip("}"):
            keyword = reader.value()
            if keyword == "RULE":
                rules.append(self._rule())
            elif keyword.startswith("INP"):
                raise reader.error(f"{keyword}: {_NO_CONDITION}")
            else:
                raise reader.error(f"RULE is expected, not {keyword!r}")
        return rules

    def _rule(self) -> Rule:
        reader = self._reader
        given = self._names()
        if len(given) < 2:
            raise reader.error("a RULE has a level and a right: RULE(1, READ)")
        level, right, *options = given
        if level not in ("0", "1"):
            raise reader.error(f"the level of a RULE is 0 or 1, not {level!r}")
        if right not in Right.__members__:
            raise reader.error(f"a RULE gives NONE, READ or WRITE, not {right!r}")
        if options not in ([], ["TRAPWRITE"], ["NOTRAPWRITE"]):
            raise reader.error(f"TRAPWRITE or NOTRAPWRITE is expected, not {', '.join(options)!r}")
        users, addresses = self._conditions()
        return Rule(int(level), Right[right], options == ["TRAPWRITE"], users, addresses)

    def _conditions(self) -> tuple[frozenset[str] | None, frozenset[str] | None]:
        """``{ UAG(a, b) HAG(c) }``: users and addresses, None where there is no such condition."""
        reader = self._reader
        users: frozenset[str] | None = None
        addresses: frozenset[str] | None = None
        if not reader.skip("{"):
            return users, addresses
        while not reader.skip("}"):
            keyword = reader.value()
            if keyword == "UAG":
                users = (users or frozenset()) | self._union(keyword, self._users)
            elif keyword == "HAG":
                addresses = (addresses or frozenset()) | self._union(keyword, self._addresses)
            elif keyword == "CALC":
                raise reader.error(f"CALC: {_NO_CONDITION}")
            else:
                raise reader.error(f"UAG or HAG is expected, not {keyword!r}")
        return users, addresses

    def _union(self, keyword: str, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
        found: frozenset[str] = frozenset()
        for name in self._names():
            if name not in known:
                raise self._reader.error(f"{keyword}({name}) is not defined before this rule")
            found |= known[name]
        return found


def summary(security: AccessSecurity, path: object, interfaces: Iterable[str]) -> str:
    """One sentence for the log at start: who may, and how to restrict it."""
    where = ", ".join(interfaces) or "any interface of this host"
    if path is None:
        return (
            f"Access: everybody who reaches {where} may read and write; "
            "--access-security FILE restricts it"
        )
    return (
        f"Access: by {path}, groups {', '.join(security.groups) or 'none'}; hosts by the address "
        "of their connection, users by the name that they give"
    )
