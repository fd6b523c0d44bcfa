"""The Hydra command line: one run, or a sweep with `-m`, carried out by the launcher of the configuration.

Errors are told in one line. Exit codes: 0 all runs are done; 1 a run failed or diverged, or was ended from outside;
2 the command cannot be carried out as given; 130 interrupted by Ctrl-C; 143 asked to stop by SIGTERM, SIGUSR1 or
SIGUSR2.
"""

import os
import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from benchmarks.config import register
from benchmarks.errors import ConfigError
from benchmarks.launchers.sweep import Sweep
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, guarded, report_error
from benchmarks.utils.paths import CONFIG_DIR
from benchmarks.utils.torchrun import several_started


def main() -> None:
    """Entry point of `python -m benchmarks train`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors through to us instead of Hydra's own report
    register()

    def command() -> int:
        if several_started() and {"-m", "--multirun"} & set(sys.argv[1:]):
            raise ConfigError("torchrun carries out one run at a time; leave out -m")
        sweep = Sweep()

        @hydra.main(config_path=str(CONFIG_DIR), config_name="config", version_base="1.3")
        def train(composed: DictConfig | Sequence[DictConfig]) -> list[float | None]:
            return sweep.carry_out([composed] if isinstance(composed, DictConfig) else composed)

        train()
        for line in (*sweep.unusable, *sweep.unsuccessful):
            report_error(line)
        if sweep.unusable:
            return EXIT_UNUSABLE
        return EXIT_RUNS_FAILED if sweep.unsuccessful else EXIT_DONE

    sys.exit(guarded(command))
