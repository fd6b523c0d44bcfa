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


_PLUS = "an option that no file sets is given with a plus"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.betas=3", "unknown key 'optimizer.betas'; known: optimizer.name, optimizer.lr, "),
        ("optimizer.epochs=3", "unknown key 'optimizer.epochs'; did you mean 'trainer.epochs'?\n"),
        ("learning.epochs=3", "unknown key 'learning'; known: task, "),
        ("model.options.drop_out=3", "unknown key 'model.options.drop_out'; did you mean 'model.options.dropout'?\n"),
        (
            "model.options.color=3",
            f"unknown key 'model.options.color'; known: model.options.dropout; {_PLUS}: +model.options.color=…\n",
        ),
        (
            "optimizer.options.betas=[0.9,0.99]",
            f"unknown key 'optimizer.options.betas'; {_PLUS}: +optimizer.options.betas=…\n",
        ),
        ("launcher.job=2", "unknown key 'launcher.job'; did you mean 'launcher.jobs'?\n"),
        ("launcher.color=2", "unknown key 'launcher.color'; known: launcher.name, launcher.jobs"),
    ],
)
def test_a_key_that_is_not_there_is_told_with_those_beside_it(command: Command, word: str, message: str) -> None:
    code, out, err = command(cli.main, "task=cora", "model=gcn", word)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(f"error: {message}")
