"""What a start does without: imports that take a second, where nobody has asked for them."""

import json
import subprocess
import sys

import pytest
from scipy.fft import next_fast_len

from tomostream_ioc.recon.phase import smooth_length

#: runs a line of Python, then says which modules are there
CHILD = "import sys, json; {line}; print(json.dumps(list(sys.modules)))"


def modules_after(line: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(line=line)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_no_torch_where_the_cpu_computes():
    engine = "from tomostream_ioc.recon.devices import resolve_device; "
    engine += "from tomostream_ioc.recon.warm_up import warm_up; "
    there = modules_after(engine + "import tomostream_ioc.app; warm_up(resolve_device('cpu'))")
    assert "numba" in there
    assert not there & {"torch", "triton", "scipy.fft", "pandas", "trackpy", "bluesky", "tiled"}


def test_no_torch_to_find_peaks_on_the_cpu():
    image = "import numpy; image = numpy.zeros((64, 64)); image[30:33, 30:33] = 100; "
    there = modules_after(
        f"{image}from tomostream_ioc.tracking import locate; assert len(locate(image, 5)) == 1"
    )
    assert "torch" not in there


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["--device", "gpu"], ["--P", "a b"], ["--nonsense"]]
)
def test_help_and_wrong_options_need_no_library(argv):
    line = (
        f"from tomostream_ioc.__main__ import main\ntry: main({argv!r})\nexcept SystemExit: pass\n"
    )
    done = modules_after(f"exec({line!r})")
    assert not done & {"numpy", "caproto", "p4p", "numba", "torch"}


@pytest.mark.parametrize("command", ["serve", "plot", "proxy", "keys"])
def test_help_of_a_command_of_documents_needs_no_database(command):
    line = "from tomostream_ioc.documents.commands import main\n"
    line += f"try: main([{command!r}, '--help'])\nexcept SystemExit: pass\n"
    there = modules_after(f"exec({line!r})")
    assert not there & {"tiled", "bluesky", "pandas", "trackpy", "numba", "matplotlib"}


@pytest.mark.parametrize("program", ["bench", "documents", "recon", "sim"])
def test_what_takes_time_is_imported_where_ctrl_c_is_caught(program):
    """A module's package, and the module's own imports, come before anything can be caught."""
    there = modules_after(f"import tomostream_ioc.{program}.__main__")
    assert not there & {"numpy", "event_model", "caproto", "p4p", "numba", "torch", "h5py"}


def test_lengths_of_transforms_are_scipys():
    lengths = range(1, 20000)
    assert [smooth_length(n) for n in lengths] == [next_fast_len(n, real=True) for n in lengths]
