"""The measurements at a small size, and their files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.speed.click_logs import __main__ as bench
from benchmarks.speed.click_logs import logs as bench_logs_module
from benchmarks.speed.click_logs import training as bench_training
from benchmarks.speed.click_logs.engines import bench_engines
from benchmarks.speed.click_logs.logs import bench_logs
from benchmarks.speed.click_logs.training import FIELD_SIZES, _cell, bench_optimizers, sized_log
from benchmarks.speed.measure import Measurement, measure
from tests.conftest import Command


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures in this process, which saves the imports of many."""

    def measured_here(work: Callable[[], Measurement], what: str) -> Measurement:
        return measure(work)

    for module in (bench_logs_module, bench_training):
        monkeypatch.setattr(module, "measure_in_subprocess", measured_here)


def test_logs_are_measured_in_every_part(tmp_path: Path, here: None) -> None:
    found = bench_logs(3000, 100, tmp_path)
    assert found["preprocess"]["rows"] == 3000 and found["read"]["rows"] == 2400
    assert 100 < found["preprocess"]["distinct_values"] >= sum(found["preprocess"]["field_sizes"]) - 39
    if "torchfm" in found:
        assert found["same_field_sizes"] and found["torchfm"]["rows"] == 3000
    assert not list(tmp_path.iterdir())


def test_generated_ids_have_the_published_number_of_values() -> None:
    assert len(FIELD_SIZES) == 39 and sum(FIELD_SIZES) == 1_086_810
    assert sized_log(100).field_sizes == FIELD_SIZES and len(sized_log(100)) == 100


def test_results_are_kept_part_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: None
) -> None:
    small = bench_logs(2000, 100, tmp_path, torchfm=False)
    cell = {"model": "dcn", "rule": "dfa", "batch_size": 512, "parameters": 10, "seconds_per_step": 0.5,
            "cpu_seconds_per_step": 0.4, "peak_memory_mb": 2000.0, "steps": 100, "hours": 3.0}  # fmt: skip
    monkeypatch.setattr(bench, "bench_logs", lambda *_, **__: small)
    monkeypatch.setattr(bench, "bench_cells", lambda device: [cell])
    for part in ("cells", "preprocess"):
        with pytest.raises(SystemExit) as ended:
            bench.main([part, "--results", str(tmp_path)])
        assert ended.value.code == 0
    content = json.loads((tmp_path / "bench" / "recommenders.json").read_text())
    assert list(content) == ["preprocess", "cells"] and content["cells"]["found"] == [cell]
    text = (tmp_path / "bench" / "recommenders.md").read_text()
    assert "| dcn/dfa |" in text and "2.00" in text and "2,000" in text
    (tmp_path / "bench" / "recommenders.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        bench.main(["cells", "--results", str(tmp_path)])
    assert ended.value.code == 2 and "damaged" in capsys.readouterr().err


def test_a_cell_runs_at_the_papers_scale() -> None:
    found = _cell("fm", "bp", steps=3, device="cpu")
    assert found["measured_steps"] == 3 and 0 < found["cpu_seconds_per_step"] < found["hours"] * 3600
    assert found["parameters"] == 17 * sum(FIELD_SIZES) + 1  # embeddings, first-order weights, bias
    assert found["steps"] == 15 * 17_906  # 36,672,493 rows in batches of 2048, 15 epochs
    assert found["peak_memory_mb"] > 4 * 4 * found["parameters"] / 1e6  # weights, gradients, two moments


def test_a_cell_that_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, here: None
) -> None:
    monkeypatch.setattr(bench_training, "execute", lambda config: {"status": "failed", "reason": "out of memory"})
    code, _, err = command(bench.main, "cells", "--results", str(tmp_path))
    assert (code, err) == (2, "error: fm bp: out of memory\n")
    assert not list(tmp_path.iterdir())


def test_engines_are_compared() -> None:
    ways = bench_engines(rows=500, vocabulary=50, turns=1)
    assert [way["engine"] for way in ways] == ["as here", "polars", "pandas", "plain Python"]
    assert all(way["cpu_seconds_per_million"] > 0 for way in ways)


def test_optimisers_of_the_table_are_compared() -> None:
    ways = bench_optimizers(steps=1, dim=1, batch_size=64)
    assert [way["optimizer"] for way in ways] == ["Adam, fused", "Adam, foreach", "SparseAdam"]
    assert all(way["seconds_per_step"] > 0 for way in ways)
