"""Importing the library is quick, and gives a version."""

import subprocess
import sys

import dfa


def test_import_does_not_load_the_compiler() -> None:
    """`torch._dynamo` takes seconds to import, ten times the rest of the library."""
    script = "import sys, dfa; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_version_is_a_release() -> None:
    assert all(part.isdecimal() for part in dfa.__version__.split("."))
