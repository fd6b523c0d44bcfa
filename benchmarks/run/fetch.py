"""Fetching the public data sets of tasks."""

import sys
from collections.abc import Sequence

from benchmarks.config import compose_config, resolve
from benchmarks.errors import DataError
from benchmarks.run.build import build_task, load_task
from benchmarks.utils.overrides import quoted
from benchmarks.utils.paths import config_files
from benchmarks.utils.values import check_known


def known_tasks() -> list[str]:
    """List the tasks that have a configuration."""
    return list(config_files("task"))


def fetch_tasks(names: Sequence[str], data_dir: str = "") -> bool:
    """Fetch and verify the data of each task; print what became of them.

    Args:
        names: of task configurations.
        data_dir: folder to put the data in; "": as configured.

    Returns:
        Whether all were fetched.

    Raises:
        ConfigError: a task that has no configuration; nothing is fetched then.
    """
    known = known_tasks()
    for name in names:
        check_known("task", name, known)
    fetched = [_fetch(name, data_dir) for name in names]
    return all(fetched)


def _fetch(name: str, data_dir: str) -> bool:
    place = [f"run.data_dir={quoted(data_dir)}"] if data_dir else []
    config = resolve(compose_config([f"task={name}", "run.download=true", *place]))
    load_task(config)
    try:
        task = build_task(config)
    except DataError as error:
        print(f"error: {name}: {error}", file=sys.stderr)
        return False
    print(f"{name}: {task.info.kind} data in {config.run.data_dir}, {len(task.info.checksums)} file(s) verified")
    return True
