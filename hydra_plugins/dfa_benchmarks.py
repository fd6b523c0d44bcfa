"""Bridge from Hydra's sweeps to the suite's launchers: composes all jobs of a sweep and hands them on as one list.

Hydra takes plug-ins from packages of this name only, and finds them by itself.
"""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write


class SuiteLauncher(Launcher):
    """Hydra launcher `hydra/launcher=suite`; it returns the best validation value of each run to Hydra's sweepers."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config
        self._carry_out = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        values = self._carry_out([self._composed(overrides) for overrides in job_overrides])
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)
            for overrides, value in zip(job_overrides, values, strict=True)
        ]

    def _composed(self, overrides: Sequence[str]) -> DictConfig:
        config = self._loader.load_sweep_config(self._config, list(overrides))
        with read_write(config), open_dict(config):
            del config["hydra"]
        return config
