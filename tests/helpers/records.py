"""Records as a run leaves them, for the tests of what reads records."""

from pathlib import Path
from typing import Any

from tests.conftest import TOY

USES = {"forward_weights": "none", "sequential": False, "bp_batches": 0.0, "extra_forwards": 0.0, "state": "none"}
"""What a rule uses that uses nothing, as recorded before there were waves."""


def whole_record(**more: Any) -> dict[str, Any]:
    """A record of a finished run, with other values for some fields."""
    counts = dict.fromkeys(("seed", "best_epoch", "best_step", "epochs", "steps", "parameters"), 0)
    amounts = dict.fromkeys(("seconds", "steps_per_second", "peak_memory_mb"), 1.0)
    return {
        "status": "done",
        "task": "toy",
        "model": "toy_mlp",
        "rule": "bp",
        "scale": "paper",
        "config_hash": "0" * 12,
        "uses": {},
        "data": {"name": "toy", "kind": "stand-in", "checksums": {}, "notes": {}},
        "valid_metric": "accuracy",
        "best_valid": 0.5,
        "higher_is_better": True,
        "metrics": {},
        "threads": 1,
        "processes": 1,
        "device": "cpu",
        "versions": {},
        "commit": "abc1234",
        "git_dirty": False,
        **counts,
        **amounts,
        **more,
    }


def table_arguments(results: Path) -> list[str]:
    """Words that ask a command for the table of toys, with its runs in a folder."""
    settings = ["--set", f"plugins=[{TOY}]", "--set", "run.wandb=disabled"]
    return ["table_3", "--scale", "mini", "--seeds", "2", "--results", str(results), *settings]
