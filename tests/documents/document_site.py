"""The commands of tomostream_ioc.documents as processes: a proxy, a server and who publishes."""

from __future__ import annotations

from command_site import LIMIT_S, Command, find_options
from crystal_scan import KEY
from support.ports import free_port

from tomostream_ioc.documents import Database

SEARCH_RANGE_PX = 5
SEED = 3
SHAPE = (10, 12)
FIND = find_options(12, SEARCH_RANGE_PX)


class Site:
    """A proxy and a server, and what happened there."""

    uid: str  # of the scan live and sent again
    file_uid: str  # ... with pixels in files
    cut_uid: str  # ... that the server's end cut
    whole: list[str]  # what the server said of runs that ended
    slow: Command
    server: Command
    db: Database

    def __init__(self, folder):
        self.folder = folder
        self.into, self.out = free_port(), free_port()
        self.children: list[Command] = []
        self.proxy = self.start("proxy", self.into, self.out)
        self.scan = [
            "--to", f"localhost:{self.into}", "--shape", f"{SHAPE[0]}x{SHAPE[1]}",
            "--seed", SEED, "--wait", LIMIT_S, "--key", KEY,
        ]  # fmt: skip
        self.background = folder / "background.npy"
        self.truth = folder / "truth.npz"

    def start(self, *arguments: object) -> Command:
        self.children.append(Command(*arguments))
        return self.children[-1]

    def serve(self, *options: object) -> Command:
        return self.start(
            "serve", "--in", f"localhost:{self.out}", *FIND, "--db", self.folder / "db",
            "--background", self.background, "--read-from", self.folder / "frames", *options,
        )  # fmt: skip


def uid_of(line: str) -> str:
    return line.split()[2].rstrip(":")


def frames_so_far(server: Command) -> int:
    lines = [line for line in server.lines if "frames " in line and " late" in line]
    return int(lines[-1].split("frames ")[1].split()[0]) if lines else 0
