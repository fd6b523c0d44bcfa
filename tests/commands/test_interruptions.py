"""Ctrl-C in any command: one line, which promises a checkpoint only where runs are trained that are kept."""

from importlib import import_module

import pytest

from benchmarks.__main__ import COMMANDS
from tests.conftest import Command

_WORDS = {
    "reproduce": ["table_3"],
    "tune": ["table_6"],
    "search": ["graphs"],
    "rank": ["task=cora"],
    "fetch": ["cora"],
    "sample": ["folder"],
    "records": ["verify"],
    "video": ["lego.gif"],
    "released": ["lego.ckpt"],
}
_GO_ON = ("train", "reproduce", "tune", "search")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interruption_promises_no_checkpoint_where_there_is_none(
    name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    module = import_module(f"benchmarks.commands.{name}")
    monkeypatch.setattr(module, "_models" if name == "bench" else "run", interrupted)
    said = "interrupted; the same command resumes from the last checkpoint\n" if name in _GO_ON else "interrupted\n"
    assert command(module.main, *_WORDS.get(name, [])) == (130, "", said)
