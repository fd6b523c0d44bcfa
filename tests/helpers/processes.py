"""Work that tests/run/test_distributed.py gives to several processes.

Usage: torchrun ... --module tests.helpers.processes FOLDER EXAMPLE

Every process leaves in FOLDER what its model held after each step.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor

from benchmarks.config import Config, compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.run.execute import execute
from benchmarks.run.trainer import Trainer
from benchmarks.utils.signals import Interrupted, handle_signals
from tests.conftest import _CHOICES, Toys
from tests.dfa.processes import leave_group
from tests.helpers.torchrun import counted_steps

Trajectory = list[dict[str, Tensor]]
RULES = ("bp", "dfa", "shallow", "calibrate")
# Parameters whose true gradient is zero, such as a bias before a batch normalisation, get one made of rounding errors;
# Adam with its usual eps would make whole steps of those.
_EPS = "optimizer.options.eps=1e-3"
# Every global batch has an odd number of rows.
_FALLING = ["+task.options.worse=true", "trainer.epochs=9", "trainer.patience=2"]
_LANGUAGE = ["task=wikitext103", "model=transformer_micro", "scale=smoke", "task.options.columns=5"]
_CLICKS = [
    "task=click_log",
    "model=dcn",
    "scale=smoke",
    "task.options.stand_in_rows=3000",
    "task.options.batch_size=301",
]
CASES = {
    # The last batch of an epoch is a single row, so one process has none. It stops early: validation is made to fall.
    "mlp": [*_FALLING, "+task.options.samples=61", "optimizer.lr=0.05"],
    "transformer": [*_LANGUAGE, "model.options.dropout=0.0", "trainer.steps=6", _EPS],
    "dcn": [*_CLICKS, "trainer.steps=6", "optimizer.lr=0.003", f"+{_EPS}"],
}


def config_of(case: str, rule: str, folder: Path) -> Config:
    """A run of a few steps."""
    # Of these, most batches give the lower parameters no gradient.
    chosen = [f"rule={rule}", *(["rule.options.rule=shallow", "rule.options.every=3"] if rule == "calibrate" else [])]
    if case == "mlp":
        return Toys(folder).config(*chosen, *CASES[case])
    return resolve(compose_config([*CASES[case], *chosen, f"run.results_dir={folder}", "run.wandb=disabled"]))


@contextmanager
def followed() -> Iterator[Trajectory]:
    """All parameters and buffers after every step of the run inside."""
    steps: Trajectory = []
    genuine = Trainer._step

    def step(trainer: Trainer) -> None:
        genuine(trainer)
        steps.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})

    with patch.object(Trainer, "_step", step):
        yield steps


def main(folder: Path, example: Path) -> None:
    rank = int(os.environ["RANK"])
    for (group, name), node in _CHOICES.items():
        ConfigStore.instance().store(group=group, name=name, node=node)
    if not (folder / f"example_{rank}.pt").exists():  # after the restart it does
        names: dict[str, object] = {}
        exec(compile(example.read_text(), str(example), "exec"), names)
        torch.save(names["model"].state_dict(), folder / f"example_{rank}.pt")  # type: ignore[attr-defined]
        for case in CASES:
            for rule in RULES:
                with followed() as steps:
                    execute(config_of(case, rule, folder / "results"))
                torch.save(steps, folder / f"{case}_{rule}_{rank}.pt")
    options = ["rule=dfa", "+model.options.dropout=0.3", "run.checkpoint_seconds=0"]
    execute(Toys(folder / "undisturbed").config(*options))
    if rank == 1:
        os.environ["TOY_FAULT"] = "nan@3"  # in this process alone
    execute(Toys(folder / "diverged").config(*options))
    if rank == 1:
        os.environ |= {"TOY_FAULT": "SIGTERM@7", "TOY_FAULT_ONCE": str(folder / "signalled")}
    with handle_signals():
        try:
            execute(Toys(folder / "asked").config(*options))
        except Interrupted as request:
            (folder / f"stopped_{rank}").write_text(str(request))
    execute(Toys(folder / "asked").config(*options))
    try:
        execute(Toys(folder / "learned").config("rule=dkp"))
    except ConfigError as error:
        (folder / f"refused_{rank}").write_text(str(error))
    if rank == 1:
        os.environ |= {"TOY_FAULT": "SIGKILL@9", "TOY_FAULT_ONCE": str(folder / "killed")}
    with counted_steps(folder / f"steps_{rank}"):
        execute(Toys(folder / "disturbed").config(*options))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    leave_group()
