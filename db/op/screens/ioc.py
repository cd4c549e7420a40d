"""The screen of the IOC itself: the process, its host, and its saved settings."""

from __future__ import annotations

from screens.layout import BANNER_HEIGHT, MARGIN, Row, banner, row, stack, stack_height, unit
from screens.widgets import Bar, Led, Readback, Screen

TITLE = "IOC and settings"
COLUMN = 560
LABEL = 120
TEXT = 290


PANELS: list[tuple[str, list[Row]]] = [
    (
        "Process",
        [
            row("Version", Readback("VERSION", "left", width=TEXT)),
            row("Host", Readback("HOSTNAME", "left", width=TEXT)),
            row("Process ID", Readback("PROCESS_ID", width=90)),
            row("Started", Readback("STARTTOD", "left", width=TEXT)),
            row("Now", Readback("TOD", "left", width=TEXT)),
            row("Up", Readback("UPTIME", "left", width=TEXT)),
            row("Heartbeat", Readback("HEARTBEAT", width=90), unit("s", 100)),
            row(
                "Server",
                Led("ServerRunning", "bad"),
                Readback("ServerRunning", "center", alarm=True, width=90),
                Readback("Watchdog", width=40),
                unit("s until it counts as stopped", 220),
            ),
        ],
    ),
    (
        "Load",
        [
            row(
                "CPU",
                Readback("IOC_CPU_LOAD", width=90),
                unit("% of", 40),
                Readback("CPU_CNT", width=40),
                unit("cores", 44),
                Bar("IOC_CPU_LOAD", (0.0, 100.0), width=180),
            ),
            row("Memory used", Readback("MEM_USED", width=140), unit("byte")),
            row(
                "Memory free",
                Readback("MEM_FREE", width=140),
                unit("byte, of the host", 160),
            ),
        ],
    ),
    (
        "Channel Access",
        [
            row(
                "Clients",
                Readback("CA_CLNT_CNT", width=90),
                unit("with", 32),
                Readback("CA_CONN_CNT", width=90),
                unit("channels", 70),
            ),
            row(
                "Cut off",
                Readback("CA_BAD_CNT", width=90),
                unit("clients: bad messages, CA and PVA", 250),
            ),
        ],
    ),
    (
        "Saved settings",
        [
            row(
                "Restored",
                Readback("SR_rebootStatus", "center", alarm=True, width=90),
                Readback("SR_rebootStatusStr", "left", width=TEXT),
            ),
            row("", unit("at", LABEL), Readback("SR_rebootTime", "left", width=TEXT)),
            row(
                "Saving",
                Readback("SR_status", "center", alarm=True, width=90),
                Readback("SR_statusStr", "left", width=TEXT),
                Led("SR_heartbeat"),
            ),
            row("Last written", Readback("SR_recentlyStr", "left", width=TEXT)),
            row(
                "Set",
                Readback("SR_0_Name", "left", width=TEXT),
                unit("state", 44),
                Readback("SR_0_State", width=40),
            ),
            row(
                "",
                unit("", LABEL),
                Readback("SR_0_Status", "center", alarm=True, width=90),
                Readback("SR_0_StatusStr", "left", width=TEXT),
            ),
            row("", unit("saved", LABEL), Readback("SR_0_Time", "left", width=TEXT)),
        ],
    ),
]


def _ioc() -> Screen:
    width = COLUMN + 2 * MARGIN
    top = BANNER_HEIGHT + MARGIN
    widgets = [*banner(TITLE, width), *stack(MARGIN, top, COLUMN, LABEL, PANELS)]
    height = top + stack_height(PANELS) + MARGIN
    return Screen("tomoStreamIOC", TITLE, width, height, widgets)


SCREEN = _ioc()
