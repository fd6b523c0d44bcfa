"""Two processes, started by torchrun once for all workers of a test run."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.utils.paths import REPOSITORY


def two_processes(base: pytest.TempPathFactory, module: str, page: str, *options: str) -> Path:
    """Return the folder in which two processes that ran a helper have left what they found.

    Args:
        base: of the test run.
        module: helper in this package; called with the folder, and with the page's first block of Python in a file.
        page: in docs.
        options: of torchrun.
    """
    own = base.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"two_{module}"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "ended").exists():
            example = folder / "example.py"
            example.write_text(_first_block(page))
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            arguments = ["--module", f"tests.helpers.{module}", str(folder), str(example)]
            ended = subprocess.run(
                [sys.executable, *launch, *options, *arguments],
                cwd=REPOSITORY,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
                capture_output=True,
                text=True,
                timeout=280,
            )
            (folder / "ended").write_text(ended.stderr if ended.returncode else "")
    assert (folder / "ended").read_text() == ""
    return folder


@contextmanager
def counted_steps(file: Path) -> Iterator[None]:
    """Write how many steps the optimisers of this process take."""
    taken: list[Optimizer] = []
    counting = register_optimizer_step_post_hook(lambda optimizer, *_: taken.append(optimizer))
    try:
        yield
    finally:
        counting.remove()
    file.write_text(str(len(taken)))


def _first_block(page: str) -> str:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]
