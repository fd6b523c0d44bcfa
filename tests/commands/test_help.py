"""Every command explains itself, with an example, and without waiting for PyTorch."""

import subprocess
import sys

import pytest

from benchmarks.__main__ import COMMANDS, main
from benchmarks.utils.paths import REPOSITORY
from tests.conftest import Command

_SUBJECTS = ("models", "language", "nerf", "click_logs")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str, command: Command) -> None:
    code, out, err = command(main, name, "--help")
    assert (code, err) == (0, "")
    assert f"python -m benchmarks {name}" in out.lower().split("example")[1], "no example"


@pytest.mark.parametrize("subject", _SUBJECTS)
def test_every_measurement_of_bench_is_in_its_help(subject: str, command: Command) -> None:
    assert subject in command(main, "bench", "--help")[1]
    code, out, _ = command(main, "bench", subject, "--help")
    assert code == 0 and f"bench {subject}" in out


def test_every_command_is_in_the_help_of_all(command: Command) -> None:
    code, out, _ = command(main, "--help")
    assert code == 0 and all(f"\n  {name} " in out for name in COMMANDS)
    assert command(main)[1] == out


def test_an_unknown_command_is_one_clear_error(command: Command) -> None:
    code, _, err = command(main, "learn")
    assert code == 2 and err.startswith("error: unknown command 'learn'; known: train") and err.count("\n") == 1
    assert "did you mean 'reproduce'?" in command(main, "reprodcue")[2]


@pytest.mark.parametrize("word", ["task=cora", "-m"])
def test_what_belongs_to_train_is_told_so_where_no_command_is_named(word: str, command: Command) -> None:
    code, _, err = command(main, word, "rule=dfa")
    assert code == 2
    assert err.startswith(f"error: '{word}' is no command: to train, begin with train, as in python -m benchmarks")


def test_help_does_not_load_pytorch() -> None:
    imports = "; ".join(f"import benchmarks.commands.{name}" for name in COMMANDS)
    loaded = "sorted({'torch', 'hydra_plugins', 'matplotlib'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", f"import sys; {imports}; print({loaded})"], capture_output=True)
    assert ended.stdout.decode().strip() == "[]"


@pytest.mark.parametrize(("given", "expected"), [("", False), ("DRY=1", True), ("DRY=0", False), ("DRY=no", False)])
def test_an_option_of_make_can_be_switched_off(given: str, expected: bool) -> None:
    words = ["make", "-n", "reproduce-table-3", *filter(None, [given])]
    shown = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert ("--dry" in shown.split()) is expected
