"""The NeRF speed measurement at a small size; its times are not checked."""

import json

import pytest

from benchmarks.speed import nerf as bench_module
from benchmarks.speed.nerf import bench


def test_every_rule_has_times_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def here(work: bench_module.Make, what: str) -> object:
        measured.append(what)
        return work()

    monkeypatch.setattr(bench_module, "in_subprocess", here)  # saves the imports of many processes
    found = bench("tiny_nerf", rays=16, parts=1, rounds=2)
    assert json.loads(json.dumps(found)) == found
    assert list(found["candidates"]) == measured == ["bp", "dfa", "shallow"]
    for candidate in found["candidates"].values():
        assert (
            0 < candidate["least_seconds"] <= candidate["seconds"] == pytest.approx(16 / candidate["rays_per_second"])
        )
        assert candidate["peak_memory_mb"] >= 0
    assert found["ratios"]["dfa_to_bp"] > 0
