"""The fields of each record type as a C IOC serves them: name, wire type, access, default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from caproto import ChannelType
from caproto.server import menus

# One token per field: NAME:kind[!][=default]. Kinds: d double, l long, h short, c uchar,
# u unsigned long (Channel Access has none and serves a double), S<n> a string of n bytes with its
# NUL, L a link, <menu> an enum. '!' = not writable by a client.
_COMMON = """
NAME:S61! DESC:S41 ASG:S29 SCAN:<menuScan> PINI:<menuPini> PHAS:h EVNT:S40 TSE:h TSEL:L
DTYP:<soft> DISV:h=1 DISA:h SDIS:L DISP:c PROC:c STAT:<menuAlarmStat>! SEVR:<menuAlarmSevr>!
AMSG:S40! NSTA:<menuAlarmStat>! NSEV:<menuAlarmSevr>! NAMSG:S40! ACKS:<menuAlarmSevr>!
ACKT:<menuYesNo>!=1 DISS:<menuAlarmSevr> LCNT:c! PACT:c! PUTF:c! RPRO:c! PRIO:<menuPriority>
TPRO:c UDF:c=1 UDFS:<menuAlarmSevr>=3 UTAG:u! FLNK:L RTYP:S40!
"""

_SIMULATION = """
SIOL:L SIML:L SIMM:<menuYesNo> SIMS:<menuAlarmSevr> OLDSIMM:<menuSimm>! SSCN:<menuScan> SDLY:d=-1
"""

_OUTPUT = "OUT:L DOL:L OMSL:<menuOmsl> IVOA:<menuIvoa>"

_FLOAT_LIMITS = """
EGU:S16 PREC:h HOPR:d LOPR:d HIHI:d LOLO:d HIGH:d LOW:d HHSV:<menuAlarmSevr> LLSV:<menuAlarmSevr>
HSV:<menuAlarmSevr> LSV:<menuAlarmSevr> HYST:d ADEL:d MDEL:d LALM:d! ALST:d! MLST:d!
"""

_TWO_STATES = """
ZNAM:S26 ONAM:S26 ZSV:<menuAlarmSevr> OSV:<menuAlarmSevr> COSV:<menuAlarmSevr> RVAL:u ORAW:u!
MASK:u! MLST:l! LALM:l!
"""

# Prefixes of an mbbo's sixteen states: xxVL its raw value, xxST its string, xxSV its severity.
STATES = (
    "ZR",
    "ON",
    "TW",
    "TH",
    "FR",
    "FV",
    "SX",
    "SV",
    "EI",
    "NI",
    "TE",
    "EL",
    "TV",
    "TT",
    "FT",
    "FF",
)
ARGUMENTS = tuple("ABCDEFGHIJKL")

_TABLES = {
    "ao": f"""{_OUTPUT} {_FLOAT_LIMITS} {_SIMULATION} OVAL:d OROC:d OIF:<aoOIF> LINR:<menuConvert>
        EGUF:d EGUL:d ROFF:u EOFF:d ESLO:d=1 DRVH:d DRVL:d AOFF:d ASLO:d RVAL:l ORAW:l! RBV:l!
        ORBV:l! PVAL:d! INIT:h!=1 LBRK:h! IVOV:d OMOD:c!""",
    "longout": f"""{_OUTPUT} {_SIMULATION} EGU:S16 DRVH:l DRVL:l HOPR:l LOPR:l HIHI:l LOLO:l HIGH:l
        LOW:l HHSV:<menuAlarmSevr> LLSV:<menuAlarmSevr> HSV:<menuAlarmSevr> LSV:<menuAlarmSevr>
        HYST:l ADEL:l MDEL:l LALM:l! ALST:l! MLST:l! IVOV:l PVAL:l OOCH:<menuYesNo>=1
        OOPT:<longoutOOPT>""",
    "mbbo": f"""{_OUTPUT} {_SIMULATION} {
        " ".join(f"{s}VL:u {s}ST:S26 {s}SV:<menuAlarmSevr>" for s in STATES)
    } NOBT:l! UNSV:<menuAlarmSevr> COSV:<menuAlarmSevr> RVAL:u ORAW:u! RBV:u!
        ORBV:u! MASK:u! MLST:l! LALM:l! SDEF:h! SHFT:l IVOV:l""",
    "bo": f"{_OUTPUT} {_SIMULATION} {_TWO_STATES} HIGH:d RBV:u! ORBV:u! IVOV:l",
    "busy": f"{_OUTPUT} {_TWO_STATES} HIGH:d RBV:u! ORBV:u! OVAL:l! IVOV:l",
    "bi": f"{_SIMULATION} {_TWO_STATES} INP:L SVAL:u",
    "stringout": f"{_OUTPUT} {_SIMULATION} OVAL:S40! MPST:<menuPost> APST:<menuPost> IVOV:S40",
    "waveform": f"""{_SIMULATION} EGU:S16 PREC:h HOPR:d LOPR:d NELM:u! FTVL:<menuFtype>! NORD:u!
        RARM:h INP:L BUSY:h! MPST:<waveformPOST> APST:<waveformPOST> HASH:u""",
    "calcout": f"""{_FLOAT_LIMITS} PVAL:d CALC:S80=0 CLCV:l OCAL:S80=0 OCLV:l OUT:L
        {" ".join(f"INP{a}:L IN{a}V:<calcoutINAV>!=3 {a}:d L{a}:d!" for a in ARGUMENTS)}
        OUTV:<calcoutINAV>!=3 OOPT:<calcoutOOPT> ODLY:d DLYA:l! DOPT:<calcoutDOPT> OEVT:S40
        IVOA:<menuIvoa> IVOV:d OVAL:d POVL:d""",
}

_OWN_MENUS = {
    "soft": ("Soft Channel",),
    "longoutOOPT": (
        "Every Time",
        "On Change",
        "When Zero",
        "When Non-zero",
        "Transition To Zero",
        "Transition To Non-zero",
    ),
}

_WIRE = {
    "d": ChannelType.DOUBLE,
    "u": ChannelType.DOUBLE,
    "l": ChannelType.LONG,
    "h": ChannelType.INT,
    "c": ChannelType.CHAR,
    "e": ChannelType.ENUM,
    "S": ChannelType.STRING,
    "L": ChannelType.STRING,
}

# Fields whose change is a change of the channel's metadata (DBE_PROPERTY).
_LIMITS = {"HIHI", "HIGH", "LOW", "LOLO", "HHSV", "HSV", "LSV", "LLSV", "DRVH", "DRVL"}
PROPERTIES = frozenset(
    {"EGU", "PREC", "HOPR", "LOPR", "ZNAM", "ONAM"} | _LIMITS | {f"{state}ST" for state in STATES}
)

# Fields whose put processes a passive record, pp(TRUE) in the DBD.
PROCESS_PASSIVE = frozenset(
    {"HYST", "RVAL", "OVAL", "ZSV", "OSV", "COSV", "UNSV", "ZNAM", "ONAM", "CALC", "OCAL"}
    | _LIMITS
    | {f"{state}{suffix}" for state in STATES for suffix in ("VL", "ST", "SV")}
    | set(ARGUMENTS)
)

# Fields of access security level 0, asl(ASL0) in the DBD, beside VAL; the others are of level 1.
_OPERATORS_FIELDS = {"calcout": {"ODLY", "DLYA", "OEVT", "OVAL", "POVL"}}


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field: ``kind`` as in the tables above, ``size`` in bytes of a string with its NUL."""

    name: str
    kind: str
    default: Any
    read_only: bool
    size: int = 40
    menu: tuple[str, ...] = ()

    @property
    def data_type(self) -> ChannelType:
        return _WIRE[self.kind]


def menu_strings(name: str) -> tuple[str, ...]:
    """The choices of an EPICS menu."""
    own = _OWN_MENUS.get(name)
    return own if own is not None else tuple(getattr(menus, name).get_string_dict().values())


def _parse(token: str) -> FieldSpec:
    name, rest = token.split(":", 1)
    rest, _, default = rest.partition("=")
    kind = rest.rstrip("!")
    read_only = rest.endswith("!")
    if kind.startswith("<"):
        return FieldSpec(name, "e", int(default or 0), read_only, menu=menu_strings(kind[1:-1]))
    if kind[0] in "SL":
        return FieldSpec(name, kind[0], default, read_only, size=int(kind[1:] or 40))
    number = float(default or 0) if kind in "du" else int(default or 0)
    return FieldSpec(name, kind, number, read_only)


def fields_of(record_type: str) -> dict[str, FieldSpec]:
    """Every field of a record type but VAL, by name.

    Raises KeyError: this product has no such record type.
    """
    tokens = _COMMON.split() + _TABLES[record_type].split()
    return {spec.name: spec for spec in map(_parse, tokens)}


def security_level(record_type: str, field: str) -> int:
    """Access security level of a field: 0 for what an operator changes, else 1."""
    return 0 if field == "VAL" or field in _OPERATORS_FIELDS.get(record_type, ()) else 1
