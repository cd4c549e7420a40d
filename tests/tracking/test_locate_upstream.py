"""trackpy's own tests of features pass with our locate in the place of trackpy.locate."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = os.environ.get("TRACKPY_TESTS", "")
FILES = ["test_feature.py", "test_feature_saving.py", "test_reproducibility.py"]
TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(
    not FOLDER,
    reason="trackpy is packaged without its tests: set TRACKPY_TESTS to the folder trackpy/tests "
    "of its sources (https://github.com/soft-matter/trackpy)",
)
@pytest.mark.timeout(600)
def test_trackpys_own_tests(tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command += ["-p", "no:cacheprovider", "-p", "support.trackpy_is_locate"]
    command += ["--import-mode", "importlib", *(str(Path(FOLDER) / name) for name in FILES)]
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    fast = re.search(r"images: (\d+) fast", done.stdout)
    assert fast, done.stdout[-2000:]
    assert int(fast[1]) > 20
