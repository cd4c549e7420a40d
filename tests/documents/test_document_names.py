"""What the package offers, and that a light part does not load the database."""

import subprocess
import sys

import tomostream_ioc.documents as documents


def test_each_name_is_there_and_comes_from_its_module():
    assert sorted(documents._HOMES) == sorted(documents.__all__)
    for name in documents.__all__:
        assert getattr(documents, name).__name__ == name


def test_the_source_of_live_images_loads_no_database():
    code = (
        "import sys, tomostream_ioc.documents.live_points as l; "
        "print([n for n in ('tiled.server', 'alembic', 'bluesky') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.stdout.strip() == "[]", shown.stderr
