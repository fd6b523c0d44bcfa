"""How `train` reads the words after it."""

import pytest

import benchmarks.commands.train as cli
from tests.conftest import Command, Toys


def test_options_stand_anywhere_among_the_overrides(toys: Toys, command: Command) -> None:
    first, *others = toys.overrides
    code, out, err = command(cli.main, first, "--cfg", "job", *others, "--resolve", "seed=3")
    assert (code, err) == (0, "") and "seed: 3\n" in out and "name: toy_mlp\n" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rule=[bp,dfa]"], "'rule=[bp,dfa]': one rule at a time; several with -m and commas, as in rule=a,b"),
        (["-m", "rule=[bp],dfa"], "'rule=[bp],dfa': one rule at a time; several with -m and commas, as in rule=a,b"),
        (["rule=true"], "unknown rule 'true'; known: bp, "),
        (["-m", "rule=bp,1"], "unknown rule '1'; known: bp, "),
        (["hydra/sweeper=1"], "unknown hydra/sweeper '1'; known: "),
    ],
)
def test_the_value_of_a_group_is_a_name(toys: Toys, command: Command, words: list[str], message: str) -> None:
    code, out, err = command(cli.main, *toys.overrides, *words)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(f"error: {message}")
    assert not toys.results.exists()
