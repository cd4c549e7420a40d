"""PyDM as a process of its own: shows a .ui file without a monitor and says what it sees, as JSON.

Arguments: file.ui P R picture.png seconds-to-wait-for-connections [text of a button to press ...]
Each press is said in a line; the next one, and the picture, wait for a line of input.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any, cast

os.environ["QT_QPA_PLATFORM"] = "offscreen"

from pydm import PyDMApplication, data_plugins
from pydm.display import load_file
from pydm.utilities.stylesheet import apply_stylesheet
from PyQt5.QtCore import QEvent
from qtpy.QtWidgets import QLabel, QPushButton, QWidget

VALUES_S = 5.0  # values come after the connection
SEEN_S = 120.0  # more than what is to be seen may take


def main() -> None:
    file, p, r, picture, limit_s, *presses = sys.argv[1:]
    application: Any = PyDMApplication(use_main_window=False, command_line_args=sys.argv[:1])
    apply_stylesheet()  # PyDM's own, as its launcher does: borders tell alarms
    not_shown = cast(int, None)
    screen: Any = load_file(file, macros={"P": p, "R": r}, target=not_shown)
    screen.show()
    plugin: Any = data_plugins.plugin_for_address("ca://any")
    connections = plugin.connections

    def wait(seconds: float, condition=lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not condition():
            application.processEvents()
            time.sleep(0.005)

    wait(float(limit_s), lambda: all(_is_connected(each) for each in connections.values()))
    valued = [widget for widget in screen.findChildren(QWidget) if getattr(widget, "channel", None)]
    wait(VALUES_S, lambda: all(widget.value is not None for widget in valued))
    for text in presses:
        (button,) = (b for b in screen.findChildren(QPushButton) if b.text() == text)
        button.click()
        print(f"pressed {text}", flush=True)
        wait(SEEN_S, lambda: bool(select.select([sys.stdin], [], [], 0)[0]))
        sys.stdin.readline()
    for _ in range(20):  # rebuilt groups of buttons find their places
        application.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        application.processEvents()
    screen.grab().save(picture)
    answer = {
        "connected": {each.address: _is_connected(each) for each in connections.values()},
        "empty": [widget.channel for widget in valued if widget.value is None],
        "size": [screen.width(), screen.height()],
        "cut": [
            widget.text()
            for kind in (QLabel, QPushButton)
            for widget in screen.findChildren(kind)
            if widget.isVisible() and not getattr(widget, "channel", None) and _is_cut(widget)
        ],
    }
    print(json.dumps(answer), flush=True)
    os._exit(0)  # libca's threads and Qt's end have no common order


def _is_connected(connection: Any) -> bool:
    """As libca says it; and PyDM is told again where it took an older answer for the newest.

    Its add_listener() asks libca in one thread whether a channel is connected, and stores the
    answer after another thread may have been told that it is: the widget stays white for good.
    """
    if connection.pv.connected and not connection.connected:
        connection.send_connection_state(conn=True)
    return connection.pv.connected and connection.connected


def _is_cut(widget) -> bool:
    """Text that stays is wider than its place."""
    return widget.fontMetrics().horizontalAdvance(widget.text()) > widget.width()


if __name__ == "__main__":
    main()
