"""Speed of parsing a click log and counting the values of every field, compared with polars, pandas and Python."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import polars as pl

from benchmarks.families.recommenders.criteo.blocks import COLUMNS, TextSource
from benchmarks.families.recommenders.criteo.preprocess import count_values
from benchmarks.families.recommenders.stand_in import ClickModel, write_text_log
from benchmarks.speed.measure import Measurement


def bench_engines(rows: int = 200_000, vocabulary: int = 25_000, turns: int = 3) -> list[Measurement]:
    """Measure CPU seconds per million rows, over all threads, of each engine; the quickest of `turns` turns counts.

    This suite ("as here") also discretises the integers, validates every cell and writes the parsed blocks to disk; the
    other engines only count strings.
    """
    with tempfile.TemporaryDirectory(prefix="click-bench-") as folder:
        text = Path(folder) / "train.txt"
        write_text_log(ClickModel(0, vocabulary), rows, text)
        engines: dict[str, Callable[[], object]] = {
            "as here": lambda: count_values(TextSource(text), Path(folder), 10, 0.0, workers=1),
            "polars": lambda: _polars(text),
            "pandas": lambda: _pandas(text),
            "plain Python": lambda: _python(text),
        }
        best = dict.fromkeys(engines, float("inf"))
        for _ in range(turns):
            for name, work in engines.items():
                started = time.process_time()
                work()
                best[name] = min(best[name], time.process_time() - started)
    return [{"engine": name, "cpu_seconds_per_million": 1e6 * seconds / rows} for name, seconds in best.items()]


def _polars(text: Path) -> list[pl.DataFrame]:
    frame = pl.read_csv(
        text, separator="\t", has_header=False, new_columns=COLUMNS, infer_schema=False, quote_char=None
    )
    return [frame.get_column(name).value_counts() for name in COLUMNS]


def _pandas(text: Path) -> list["pd.Series[int]"]:
    frame = pd.read_csv(text, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
    return [frame[column].value_counts() for column in frame]


def _python(text: Path) -> list[Counter[str]]:
    counters: list[Counter[str]] = [Counter() for _ in COLUMNS]
    with text.open() as lines:
        for line in lines:
            for counter, cell in zip(counters, line.rstrip("\n").split("\t"), strict=True):
                counter[cell] += 1
    return counters
