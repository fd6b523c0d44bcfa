"""Environment variables that processes inherit which are started inside."""

import os
import subprocess
import sys

import pytest

from benchmarks.utils.environment import changed, python_path
from benchmarks.utils.paths import REPOSITORY


def test_variables_are_inherited_and_then_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", "old")
    monkeypatch.delenv("NOT_THERE", raising=False)
    code = "import os; print(os.environ['THERE'], os.environ['NOT_THERE'])"
    with pytest.raises(ZeroDivisionError), changed(THERE="new", NOT_THERE="one"):
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "new one\n"
        raise ZeroDivisionError
    assert os.environ["THERE"] == "old" and "NOT_THERE" not in os.environ


def test_a_variable_that_was_removed_meanwhile_is_no_error() -> None:
    with changed(NOT_THERE="one"):
        del os.environ["NOT_THERE"]
    assert "NOT_THERE" not in os.environ


def test_this_code_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    assert python_path() == f"{REPOSITORY}{os.pathsep}elsewhere"
    monkeypatch.delenv("PYTHONPATH")
    assert python_path() == str(REPOSITORY)
