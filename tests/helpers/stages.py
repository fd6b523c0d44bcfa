"""Work that tests/run/test_stages.py gives to two processes.

Usage: torchrun ... --module tests.helpers.stages FOLDER EXAMPLE
"""

import os
import sys
from pathlib import Path

import torch
from hydra.core.config_store import ConfigStore

from benchmarks.config import Config, compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.run.execute import execute
from tests.conftest import _CHOICES, Toys
from tests.dfa.processes import leave_group
from tests.helpers.torchrun import counted_steps

_SMALL = ["scale=smoke", "task.source=stand_in"]
CASES = {
    "mlp": [],
    "transformer": ["task=wikitext2", "model=transformer_macro", "model.options.dropout=0.2", *_SMALL],
    "nerf": ["task=blender_lego", "model=nerf", *_SMALL],
}


def config_of(case: str, folder: Path, *more: str) -> Config:
    """A run of a few steps under DFA."""
    if case == "mlp":
        return Toys(folder).config("rule=dfa", "+model.options.dropout=0.3", *more)
    return resolve(compose_config([*CASES[case], "rule=dfa", f"run.results_dir={folder}", "run.wandb=disabled", *more]))


def main(folder: Path, example: Path) -> None:
    rank = int(os.environ["RANK"])
    for (group, name), node in _CHOICES.items():
        ConfigStore.instance().store(group=group, name=name, node=node)
    if not (folder / f"example_{rank}.pt").exists():  # after the restart it does
        names: dict[str, object] = {}
        exec(compile(example.read_text(), str(example), "exec"), names)
        torch.save(names["model"].state_dict(), folder / f"example_{rank}.pt")  # type: ignore[attr-defined]
    for case in CASES:
        execute(config_of(case, folder / "results", "run.stages=2"))
    for name, options in {"rule": ["rule=bp", "run.stages=2"], "stages": ["rule=dfa", "run.stages=3"]}.items():
        try:
            execute(Toys(folder / "refused").config(*options))
        except ConfigError as error:
            (folder / f"{name}_{rank}").write_text(str(error))
    if rank == 1:
        os.environ |= {"TOY_FAULT": "SIGKILL@9", "TOY_FAULT_ONCE": str(folder / "killed")}
    with counted_steps(folder / f"steps_{rank}"):
        execute(config_of("mlp", folder / "disturbed", "run.stages=2", "run.checkpoint_seconds=0"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    leave_group()
