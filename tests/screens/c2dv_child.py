"""c2dataviewer's image window as a process of its own, without a monitor; what it showed, as JSON.

Arguments: channel picture.png seconds-to-wait
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["QT_QPA_PLATFORM"] = "offscreen"

import numpy as np
from c2dataviewer.control import ImageController
from c2dataviewer.imagev import ImageSettingsDialog, ImageWindow, WarningDialog
from c2dataviewer.model import DataSource
from PyQt5.QtCore import QTimer
from PyQt5.QtWidgets import QApplication


def main() -> None:
    channel, picture, limit_s = sys.argv[1:]
    application = QApplication(sys.argv[:1])
    # as c2dataviewer.imagev.imagev() does, but for its endless loop
    window = ImageWindow(None)
    source = DataSource(QTimer, default=None)
    shown = window.imageWidget
    shown.set_datasource(source)
    controller = ImageController(
        window,
        IMAGE_SETTINGS_DIALOG=ImageSettingsDialog(None),
        WARNING=WarningDialog(None),
        PV=[channel],
        timer=QTimer(),
        data=source,
    )
    shown.set_scaling()
    window.show()
    deadline = time.monotonic() + float(limit_s)
    while time.monotonic() < deadline and getattr(shown, "frames_displayed", 0) < 3:
        application.processEvents()
        time.sleep(0.005)
    window.grab().save(picture)
    answer = {"displayed": shown.frames_displayed, "controller": type(controller).__name__}
    if shown.frames_displayed:
        image = shown.last_displayed_image.image
        answer |= {
            "width": image.shape[0],  # the viewer keeps (x, y)
            "height": image.shape[1],
            "largest": float(np.nanmax(image)),
            "smallest": float(np.nanmin(image)),
        }
    print(json.dumps(answer), flush=True)
    os._exit(0)  # the threads of PVA and of Qt have no common order at the end


if __name__ == "__main__":
    main()
