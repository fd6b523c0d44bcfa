"""Gradients of a model in stages against those of one process."""

from pathlib import Path

import pytest
import torch
from torch import distributed

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
pytest.importorskip("torch.distributed.pipelining")

from tests.dfa.pipeline.stages import Case, Found, in_one_process, work  # noqa: E402
from tests.dfa.reference import assert_same  # noqa: E402

TWO_STAGES = {
    "shared": Case(),
    "one micro-batch": Case(microbatches=1),
    "per point": Case(options={"sharing": "per_point", "distribution": "gaussian"}, microbatches=2),
    "error inside": Case(error_at="blocks.3"),
    "error above": Case(error_at="norm", microbatches=2),
    "codec": Case(options={"codec": "sign", "draw": "counter", "keep": False}, microbatches=2),
    "identity": Case("identity", {"damping": 0.5}),
    "identity without matrices": Case("identity", {"otherwise": "zero"}, error_at="norm"),
    "one wave": Case("highway", {"damping": 0.5}, microbatches=2),
    "two waves": Case("highway", {"waves": 2, "otherwise": "zero", "codec": "sign"}, error_at="norm"),
    "all waves": Case("highway", {"waves": 20}),
    "no wave": Case("highway", {"waves": 0}, microbatches=1),
    "shallow": Case("shallow"),
    "bfloat16": Case(bf16=True),
    "bfloat16, one wave": Case("highway", bf16=True, microbatches=2),
    "bfloat16, error inside": Case("identity", bf16=True, error_at="norm"),
}
THREE_STAGES = {
    name: Case(rule, options, at=("blocks.1", "blocks.3"), microbatches=microbatches)
    for name, rule, options, microbatches in [
        ("shared", "dfa", {}, 4),
        ("fewer than stages", "dfa", {}, 2),
        ("identity", "identity", {"damping": 0.5}, 4),
        ("three waves", "highway", {"damping": 0.5, "waves": 3}, 4),
    ]
}


@pytest.mark.parametrize("cases", [TWO_STAGES, THREE_STAGES], ids=["two stages", "three stages"])
def test_stages_add_up_to_one_process(tmp_path: Path, cases: dict[str, Case]) -> None:
    stages = len(next(iter(cases.values())).at) + 1
    torch.multiprocessing.spawn(work, (str(tmp_path), cases), nprocs=stages)
    for name, case in cases.items():
        found: list[Found] = [torch.load(tmp_path / f"{name}_{rank}.pt") for rank in range(stages)]
        expected_gradients, expected_buffers, losses, output = in_one_process(case)
        assert all(part[0] for part in found[0 if case.rule != "shallow" else -1 :]), name
        parts = [name for part in found for name in part[0]]
        assert len(parts) == len(set(parts)), "a parameter learns in one stage only"
        assert_same({key: value for part in found for key, value in part[0].items()}, expected_gradients)
        assert_same({key: value for part in found for key, value in part[1].items()}, expected_buffers)
        assert found[-1][2] == pytest.approx(losses, rel=1e-6)
        last = found[-1][3]
        assert last is not None and output is not None and torch.allclose(last, output, rtol=1e-6)
