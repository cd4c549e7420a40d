"""Records of the process itself, named as iocStats' templates name them."""

from __future__ import annotations

from caproto.server import PVGroup

from tomostream_ioc.epics.declare import declare
from tomostream_ioc.epics.records import Ao, Longout, Stringout


class OperationRecords(PVGroup):
    """What iocStats shows of an IOC."""

    heartbeat = declare(
        Longout,
        "HEARTBEAT",
        "Counts seconds while records are served",
        value=0,
        read_only=True,
        EGU="s",
    )
    uptime = declare(Stringout, "UPTIME", "Elapsed time since start", value="", read_only=True)
    start_time = declare(
        Stringout, "STARTTOD", "Time and date of startup", value="", read_only=True
    )
    time_of_day = declare(Stringout, "TOD", "Current time and date", value="", read_only=True)
    cpu_load = declare(
        Ao,
        "IOC_CPU_LOAD",
        "CPU load of this IOC, of all cores",
        value=0.0,
        read_only=True,
        EGU="%",
        PREC=1,
        LOPR=0,
        HOPR=100,
    )
    cpu_count = declare(Longout, "CPU_CNT", "Number of CPU cores", value=0, read_only=True)
    host_memory_used = declare(
        Ao, "MEM_USED", "Memory that this IOC occupies", value=0.0, read_only=True, EGU="byte"
    )
    host_memory_free = declare(
        Ao, "MEM_FREE", "Memory that the host has left", value=0.0, read_only=True, EGU="byte"
    )
    ca_clients = declare(Longout, "CA_CLNT_CNT", "Number of CA clients", value=0, read_only=True)
    ca_channels = declare(
        Longout, "CA_CONN_CNT", "Number of CA connections", value=0, read_only=True
    )
    ca_bad_clients = declare(
        Longout, "CA_BAD_CNT", "Clients disconnected: bad messages", value=0, read_only=True
    )
    process_id = declare(Longout, "PROCESS_ID", "Process ID", value=0, read_only=True)
    hostname = declare(Stringout, "HOSTNAME", "Host name", value="", read_only=True)
    version = declare(Stringout, "VERSION", "Version of tomostream_ioc", value="", read_only=True)
