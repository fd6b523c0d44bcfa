"""How `train` reads the words after it."""

import benchmarks.commands.train as cli
from tests.conftest import Command, Toys


def test_options_stand_anywhere_among_the_overrides(toys: Toys, command: Command) -> None:
    first, *others = toys.overrides
    code, out, err = command(cli.main, first, "--cfg", "job", *others, "--resolve", "seed=3")
    assert (code, err) == (0, "") and "seed: 3\n" in out and "name: toy_mlp\n" in out
