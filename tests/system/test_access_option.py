"""--access-security from the command line to the client."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.processes import ChildError, Ioc, wait_for


def test_the_file_of_the_command_line_holds(tmp_path: Path) -> None:
    path = tmp_path / "ioc.acf"
    path.write_text(
        "UAG(nobody) {nobody-has-this-name}\n"
        "ASG(DEFAULT) { RULE(1, READ) RULE(1, WRITE) { UAG(nobody) } }\n"
    )
    ioc = Ioc(tmp_path, "--TOMO_SCAN", "", "--access-security", str(path))
    try:
        ioc.expect("Serving")
        assert f"Access: by {path}, groups DEFAULT;" in ioc.output
        before = ioc.get("HEARTBEAT")
        with pytest.raises(ChildError, match="Write access denied"):
            ioc.put("OrthoX", 7)
        wait_for(lambda: ioc.get("HEARTBEAT") > before, 10, "the heartbeat")
        assert ioc.get("OrthoX") == 0
    finally:
        ioc.close()
