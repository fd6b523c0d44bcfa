"""Copies for Weights & Biases: of each run, and of finished tables and figures.

What lies on disk is the truth, and no failure here harms it. Offline copies are under `<results>/wandb`; `wandb sync`
uploads them.
"""

import hashlib
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.config import Config, RunSettings, identity, to_dict
from benchmarks.run.record_schema import Record
from benchmarks.run.records import RunFolder

PROJECT = "dfa-benchmarks"
FINISH_SECONDS = 120
"""How long a run that is over waits for its upload; what is left over then is on disk, for `wandb sync`."""


class WandbCopy:
    """Mirrors one run. Online it logs live; offline the whole run is written once it is over, from its record.

    A run keeps its id over resumptions. It is filed under its table (`run.wandb_group`), by cell and seed.
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
            config, name = self._config, self._folder.path.name
            default = f"{config.task.name}/{config.model.name}/{config.rule.name}/seed{config.seed}"
            self._run = _begin(
                config.run,
                id=f"{config.rule.name}-{name}",
                name=config.run.wandb_name or default,
                group=config.run.wandb_group or config.task.name,
                job_type="run",
                tags=[config.task.name, config.model.name, config.rule.name, config.scale],
                config={**to_dict(config), "identity": identity(config)},
            )
        return self._run

    def _replay(self) -> None:
        for row in self._folder.history():
            self._started().log(row, step=row["step"])

    def _close(self, record: Record) -> None:
        run = self._started()
        run.summary.update(record)
        run.finish(exit_code=0 if record["status"] == "done" else 1)

    def _guarded(self, action: Callable[[], None]) -> None:
        if self._mode != "disabled" and not _succeeds(action, "this run"):
            self._mode, self._run = "disabled", None


def copy_files(settings: RunSettings, name: str, kind: str, files: Sequence[Path], runs: Sequence[Config]) -> None:
    """Keep the files of a finished table or figure as an artefact, in a run of its own beside those it was made of.

    The same files are copied once, however often they are written.

    Args:
        settings: of any of its runs: whether there are copies, and where.
        name: of the artefact and of the group of its runs, e.g. "table_3".
        kind: "table" or "figure".
        files: what is kept.
        runs: what it was made of; their identities are noted.
    """
    if settings.wandb == "disabled":
        return

    def copy() -> None:
        content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
        run_id = f"{name}-{content}"
        if any(Path(settings.results_dir, "wandb").glob(f"*run-*-{run_id}")):
            return
        made_of = {"runs": [identity(config) for config in runs]}
        run = _begin(settings, id=run_id, name=name, group=name, job_type=kind, tags=[kind], config=made_of)
        artifact = _wandb().Artifact(name, type=kind, metadata=made_of)
        for file in files:
            # A copy that stays with the run's own files: the original is replaced when the table is made again.
            kept = shutil.copy(file, run.dir)
            artifact.add_file(kept, name=file.name, policy="immutable")
        run.log_artifact(artifact)
        run.finish()

    _succeeds(copy, name)


def _begin(settings: RunSettings, **description: Any) -> Any:
    wandb = _wandb()
    place = Path(settings.results_dir)
    place.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=PROJECT,
        mode=settings.wandb,
        dir=str(place),
        resume="allow" if settings.wandb == "online" else None,
        settings=wandb.Settings(console="off", x_disable_stats=True, finish_timeout=FINISH_SECONDS),
        **description,
    )


def _wandb() -> Any:
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.raiseExceptions = False  # or a full disk shows a traceback for every line of wandb's own log
    import wandb  # imported late: it takes a second, and may be absent

    return wandb


def _succeeds(action: Callable[[], None], what: str) -> bool:
    """Whether an action went well; if not, a warning says so and nothing else happens."""
    try:
        action()
    except Exception as error:
        reason = str(error) or type(error).__name__
        warnings.warn(f"the Weights & Biases copy of {what} is incomplete: {reason}", stacklevel=3)
        return False
    return True
