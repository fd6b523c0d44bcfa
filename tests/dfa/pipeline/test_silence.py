"""Stages that end or hang, and what the others make of it."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
pytest.importorskip("torch.distributed.pipelining")

from torch.distributed.pipelining import PipelineStage  # noqa: E402

from dfa.pipeline import PipelineError, ScheduleFeedback, cut  # noqa: E402
from tests.dfa.pipeline.stages import Case  # noqa: E402


def die(output: Tensor, target: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return output.sum()


def hang(output: Tensor, target: Tensor) -> Tensor:
    time.sleep(60)
    return output.sum()


FAULTS = {"die": die, "hang": hang}


def train(rank: int, folder: str, fault: str) -> None:
    """One good step; in the second, the loss of the last stage ends its process or takes too long."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    model, x, targets, rule = Case().build()
    stage = PipelineStage(cut(model, ["blocks.2"], rank), rank, 2, torch.device("cpu"))
    schedule = ScheduleFeedback(stage, 2, cross_entropy, rule, timeout=timedelta(seconds=2))
    schedule.step(*[x] * (rank == 0), target=targets)
    schedule._loss_fn = FAULTS[fault]
    start = time.perf_counter()
    try:
        schedule.step(*[x] * (rank == 0), target=targets)
    except PipelineError as error:
        Path(folder, "message").write_text(f"{time.perf_counter() - start:.1f}\n{error}")
    os._exit(0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stage_without_answer_ends_the_others_with_one_line(tmp_path: Path, fault: str) -> None:
    context = torch.multiprocessing.get_context("spawn")
    first, last = [context.Process(target=train, args=(rank, str(tmp_path), fault)) for rank in range(2)]
    first.start()
    last.start()
    first.join(60)
    last.kill()
    last.join()
    assert first.exitcode == 0
    seconds, *message = (tmp_path / "message").read_text().splitlines()
    assert float(seconds) < 20
    (line,) = message
    assert line.startswith("stage 0 of 2: no answer while waiting for the error of the last stage (")
