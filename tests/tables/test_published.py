"""The loader against numbers typed from the paper and against a plain reading of the file."""

import pytest
import yaml

from benchmarks.errors import ConfigError
from benchmarks.tables.published import PAPER_FILE, known_references, load_reference, parse_reference

TABLES = {f"table_{name}" for name in ("1", "2", "3", "4", "5", "a1", "a2", "a3", "a4", "a5")}


@pytest.mark.parametrize(
    ("table", "row", "column", "metric", "number"),
    [
        ("table_1", "llff_real", "nerf/dfa", "psnr", 20.77),
        ("table_2", "dcn/dfa", "", "log_loss", 0.4502),
        ("table_2", "autoint/bp", "", "auc", 0.7937),
        ("table_3", "gcn/dfa", "citeseer", "accuracy_percent", 69.4),
        ("table_3", "dna/bp", "pubmed", "accuracy_percent", 87.2),
        ("table_4", "citeseer/bp", "", "ap", 0.895),
        ("table_5", "dfa_micro", "lr_schedule", "perplexity", 93.3),
        ("table_5", "shallow", "baseline", "perplexity", 428.0),
        ("table_a1", "dcn", "", "alignment_std", 0.91),
        ("table_a2", "spline", "", "alignment_mean", 0.56),
        ("table_a3", "dcn/shallow", "", "auc", 0.7324),
        ("table_a4", "gat/shallow", "pubmed", "accuracy_percent", 67.8),
        ("table_a5", "horns", "nerf/bp", "psnr", 27.45),
    ],
)
def test_numbers_of_the_paper(table: str, row: str, column: str, metric: str, number: float) -> None:
    assert load_reference(table).value(row, column, metric) == number


def test_tables_are_the_papers() -> None:
    assert set(known_references()) == TABLES


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_number_of_the_file_is_kept_and_no_other(name: str) -> None:
    entry = yaml.safe_load(PAPER_FILE.read_text(encoding="utf-8"))[name]
    printed = [number for numbers in entry["rows"].values() for number in numbers]
    for numbers in entry.get("extra", {}).values():
        printed += numbers if isinstance(numbers, list) else [numbers]
    known = sorted(number for number in printed if number is not None)
    assert sorted(load_reference(name).values.values()) == known
    assert load_reference(name).rows == tuple(entry["rows"])


def test_what_the_paper_leaves_blank_is_none() -> None:
    table = load_reference("table_1")
    assert table.value("llff_real", "nv/bp", "psnr") is None
    assert not table.reports("llff_real", "nv/bp")
    assert table.reports("nerf_synthetic", "nv/bp")


def test_unknown_table_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'table_9'; known: table_1, table_2"):
        load_reference("table_9")


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"row 'gcn': 1 numbers for 2 places"):
        parse_reference("t", {"metric": "m", "columns": ["a", "b"], "rows": {"gcn": [1.0]}})


def test_an_extra_in_an_unknown_column_is_refused() -> None:
    entry = {"metric": "m", "columns": ["a"], "rows": {"gcn": [1.0]}, "extra": {"gcn/b": 2.0}}
    with pytest.raises(ConfigError, match="no column 'b'"):
        parse_reference("t", entry)
