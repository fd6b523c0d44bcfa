"""Environment variables for processes that are started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.utils.paths import REPOSITORY


@contextmanager
def changed(**variables: str) -> Iterator[None]:
    """Set environment variables inside, which processes that are started there inherit; then they are as before."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def python_path() -> str:
    """Return PYTHONPATH with this code in front."""
    return os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
