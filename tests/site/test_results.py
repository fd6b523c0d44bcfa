"""The numbers and runs that pages show, against the tables' CSV files and the records, read anew."""

import csv
import json
import shlex
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.config import compose_config, identity, resolve
from benchmarks.errors import ResultsError
from benchmarks.site.details import commands, data_script
from benchmarks.site.results import TABLES, committed_tables, read_table
from benchmarks.tables.archive import RECORDS

RECORDED = [name for name in committed_tables() if (RECORDS / f"{name}.parquet").exists()]


def _csv(name: str) -> list[dict[str, str]]:
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(RECORDS / f"{name}.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("name", committed_tables())
def test_every_line_of_a_table_is_a_number_of_its_page(name: str) -> None:
    table, lines = read_table(name), _csv(name)
    assert [(r.row, r.column, r.metric) for r in table.results] == [(x["row"], x["column"], x["metric"]) for x in lines]
    for result, line in zip(table.results, lines, strict=True):
        assert result.mean == (float(line["mean"]) if line["mean"] else None)
        if line["paper"]:
            assert result.paper == float(line["paper"])
        if line["data"] == "stand-in":
            assert result.paper is None
    assert len({result.anchor for result in table.results}) == len(lines)


@pytest.mark.parametrize("name", RECORDED)
def test_seeds_have_the_mean_and_the_spread_of_the_table(name: str) -> None:
    for result in read_table(name).results:
        assert len(result.seeds) == result.n
        values = list(result.seeds.values())
        if values:
            assert np.mean(values) == pytest.approx(result.mean, rel=1e-8)
            if result.std is not None:
                assert np.std(values, ddof=1) == pytest.approx(result.std, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", RECORDED)
def test_every_record_stands_behind_a_number(name: str) -> None:
    shown = {json.dumps(run.record) for runs in read_table(name).runs.values() for run in runs}
    assert shown == {json.dumps(json.loads(row["record"])) for row in _rows(name)}


def test_a_cell_has_the_records_of_its_task_and_rule() -> None:
    by_cell: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in _rows("table_4"):
        record = json.loads(row["record"])
        by_cell[record["task"], record["rule"]][record["seed"]] = record["metrics"]["test/ap"]
    table = read_table("table_4")
    for task in ("cora", "citeseer", "pubmed"):
        for rule in ("bp", "dfa", "shallow"):
            assert table.find(f"{task}-{rule}-ap").seeds == by_cell[f"{task}_links", rule]


@pytest.mark.parametrize("name", RECORDED)
def test_commands_make_the_recorded_runs(name: str) -> None:
    recorded = {row["identity"] for row in _rows(name)}
    table = read_table(name)
    for cell, results in table.cells():
        seeds = sorted({int(run.record["seed"]) for run in table.runs.get(cell, ())})
        if results[0].cell is None or not seeds:
            continue
        for line in commands(results[0].cell, results[0].scale, seeds[-1:], results[0].data):
            program, words = line.split(" train ")
            assert program == "python -m benchmarks"
            assert identity(resolve(compose_config(shlex.split(words)))) in recorded, line


def test_a_command_names_generated_data_and_several_seeds() -> None:
    cell = read_table("table_2").find("dcn-dfa-auc").cell
    assert cell is not None
    assert commands(cell, "mini", [0, 1, 2], "stand-in") == [
        "python -m benchmarks train -m task=criteo model=dcn rule=dfa task.source=stand_in scale=mini seed=0,1,2"
    ]


def test_the_data_of_a_page_are_a_script_with_curves_and_records() -> None:
    script = data_script(read_table("table_4"))
    content = json.loads(script.removeprefix("window.tableData = ").rstrip().removesuffix(";"))
    runs = content["cells"]["cora/dfa"]["runs"]
    row = next(json.loads(row["history"]) for row in _rows("table_4") if json.loads(row["record"]) == runs[3]["record"])
    assert runs[3]["curves"]["step"] == [line["step"] for line in row]
    assert runs[3]["curves"]["valid/auc"] == pytest.approx([line["valid/auc"] for line in row], rel=1e-5)
    assert content["recorded"] and content["cells"]["cora/dfa"]["commands"]


def test_a_number_that_no_table_has_is_an_error() -> None:
    with pytest.raises(ResultsError, match="table_4 has no number 'cora-dfa-psnr'"):
        read_table("table_4").find("cora-dfa-psnr")
