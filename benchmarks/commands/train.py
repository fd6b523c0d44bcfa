"""Train one run, or a sweep with -m, described by Hydra overrides.

Examples:
  python -m benchmarks train task=cora model=gcn rule=dfa seed=0
  python -m benchmarks train -m task=cora model=gcn,gat rule=bp,dfa,shallow seed=0,1,2

Options:
  KEY=VALUE            set any value of configs/, e.g. optimizer.lr=1e-3
  -m, --multirun       train all combinations of the values separated by commas
  --config-dir FOLDER  add tasks, models and rules of your own; may be given several times
  --cfg job            print the whole configuration instead of training

A run that is recorded is not run again; one that was interrupted continues from its checkpoint. Exit codes: 0 all runs
are done; 1 a run failed or diverged, has a damaged record, or was ended from outside; 2 the command cannot be carried
out as given; 130 interrupted by Ctrl-C; 143 asked to stop by SIGTERM, SIGUSR1 or SIGUSR2.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.errors import ConfigError
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, guarded, report_error
from benchmarks.utils.paths import CONFIG_DIR, add_config_folder, search_path
from benchmarks.utils.torchrun import several_started

_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("-m", "--multirun", "--config-dir", "-cd", "--resolve"), ()),
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
}
"""Options, with the values that follow those that take one of a few."""


def main() -> None:
    """Entry point of `python -m benchmarks train`."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((__doc__ or "").strip())
        sys.exit(EXIT_DONE)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors through to us instead of Hydra's own report
    sys.exit(guarded(run, resumes=True))


def run() -> int:
    """Have Hydra compose the runs that the command line describes, and train them; return the exit code."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    from benchmarks.config import register
    from benchmarks.launchers.sweep import Sweep
    from benchmarks.utils.config_choices import check_choices
    from benchmarks.utils.config_words import check_groups

    if several_started() and {"-m", "--multirun"} & set(sys.argv[1:]):
        raise ConfigError("torchrun carries out one run at a time; leave out -m")
    _check_options(sys.argv[1:])
    words = _without_config_folders(sys.argv[1:])
    sys.argv[1:] = [*_options_first(words), *search_path()]
    register()
    check_groups(word for word in words if not word.startswith("-"))
    sweep = Sweep()

    @hydra.main(config_path=str(CONFIG_DIR), config_name="config", version_base="1.3")
    def train(composed: DictConfig | Sequence[DictConfig]) -> list[float | None]:
        if not isinstance(composed, DictConfig):
            return sweep.carry_out(composed)
        job = HydraConfig.get()
        overrides: Any = OmegaConf.to_container(job.overrides.task)  # as they were written
        try:
            check_choices(composed, job.runtime.choices, overrides)
        except ConfigError as error:  # Hydra would print a line of its own before it
            sweep.unusable.append(str(error))
            return []
        return sweep.carry_out([composed])

    train()
    for line in (*sweep.unusable, *sweep.unsuccessful):
        report_error(line)
    if sweep.unusable:
        return EXIT_UNUSABLE
    return EXIT_RUNS_FAILED if sweep.unsuccessful else EXIT_DONE


def _check_options(words: Sequence[str]) -> None:
    """Refuse Hydra's options that are not ours, such as one that reads a pickle, and mistakes in one line."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            continue
        if name not in _OPTIONS:
            raise ConfigError(f"unknown option '{name}'; see python -m benchmarks train --help")
        if _OPTIONS[name]:
            given = value if equals else "".join(words[place + 1 : place + 2])
            if given not in _OPTIONS[name]:
                raise ConfigError(f"{name} must be one of {', '.join(_OPTIONS[name])}, got '{given}'")
    names = {word.partition("=")[0] for word in words}
    prints, sweeps = names & {"--cfg", "-c"}, names & {"-m", "--multirun"}
    if prints and sweeps:
        raise ConfigError(f"{min(prints)} prints the configuration of one run: leave out {min(sweeps)}")
    if "--resolve" in names and not prints:
        raise ConfigError("--resolve is for --cfg, which prints a configuration")


def _without_config_folders(arguments: Sequence[str]) -> list[str]:
    """Take `--config-dir FOLDER`, as often as it is given, out of the arguments and note the folders.

    Hydra has an option of this name, but takes one folder only and does not tell worker processes of it.
    """
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, folder = word.partition("=")
        if name in ("--config-dir", "-cd"):
            add_config_folder(folder if equals else next(words, ""))
        else:
            rest.append(word)
    return rest


def _options_first(words: Sequence[str]) -> list[str]:
    """Put the options before the overrides, which Hydra takes in one piece only."""
    options: list[str] = []
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        options.append(word)
        if _OPTIONS[word.partition("=")[0]] and "=" not in word:
            options.append(next(rest))
    return [*options, *overrides]
