"""A copy of each run for Weights & Biases; the record on disk is the truth, and no failure here harms it."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.config import Config, identity, to_dict
from benchmarks.records import Record, RunFolder

PROJECT = "dfa-benchmarks"


class WandbCopy:
    """Mirrors one run. Online it logs live; offline the whole run is written once it is over, from its record.

    Offline copies lie under `<results>/wandb` and are uploaded by `wandb sync`. A run keeps its id over resumptions.
    """

    def __init__(self, config: Config, folder: RunFolder) -> None:
        self._config = config
        self._folder = folder
        self._mode = config.run.wandb
        self._run: Any = None

    def log(self, row: dict[str, Any]) -> None:
        """One line of the history, sent at once if online."""
        if self._mode == "online":
            self._guarded(lambda: self._started().log(row, step=row["step"]))

    def finish(self, record: Record) -> None:
        """Complete the copy: config, history, and the record as summary."""
        if self._mode == "disabled":
            return
        if self._mode == "offline":
            self._guarded(self._replay)
        self._guarded(lambda: self._close(record))

    def _started(self) -> Any:
        """The run, begun when it is first needed: a run that turns out to be impossible leaves no copy."""
        if self._run is None:
            self._start()
        return self._run

    def _start(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb  # imported late: it takes a second, and may be absent

        config, name = self._config, self._folder.path.name
        place = Path(config.run.results_dir)
        place.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=PROJECT,
            mode="online" if self._mode == "online" else "offline",
            dir=str(place),
            id=f"{config.rule.name}-{name}",
            name=f"{config.task.name}/{config.model.name}/{config.rule.name}/seed{config.seed}",
            group=config.run.wandb_group or config.task.name,
            tags=[config.task.name, config.model.name, config.rule.name, config.scale],
            config={**to_dict(config), "identity": identity(config)},
            resume="allow" if self._mode == "online" else None,
            settings=wandb.Settings(console="off", x_disable_stats=True),
        )

    def _replay(self) -> None:
        for row in self._folder.history():
            self._started().log(row, step=row["step"])

    def _close(self, record: Record) -> None:
        run = self._started()
        run.summary.update(record)
        run.finish(exit_code=0 if record["status"] == "done" else 1)

    def _guarded(self, action: Callable[[], None]) -> None:
        if self._mode == "disabled":
            return
        try:
            action()
        except Exception as error:
            warnings.warn(f"the Weights & Biases copy of this run is incomplete: {error}", stacklevel=2)
            self._mode, self._run = "disabled", None
