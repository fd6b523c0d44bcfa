"""Measurements of memory, and what becomes of freed memory."""

import platform
import subprocess
import sys

import psutil
import pytest
import torch

from benchmarks.utils.machine import PeakMemory

GAPS = """
import psutil
import torch
from benchmarks.utils.machine import keep_freed_memory, release_freed_memory

def resident():
    return psutil.Process().memory_info().rss / 1e6

keep_freed_memory()
blocks = [torch.ones(size) for _ in range(200) for size in (250_000, 10)]  # 1 MB, then a few bytes that stay
small = blocks[1::2]
del blocks
kept = resident()
release_freed_memory()
print(kept - resident(), len(small))
"""
"""A process that frees 200 MB in the gaps between blocks that it keeps, and prints how many MB it then gives back."""


def test_peak_memory_of_a_process_is_told_in_millions_of_bytes() -> None:
    memory = PeakMemory(torch.device("cpu"))
    held = torch.ones(400_000_000, dtype=torch.uint8)
    resident = psutil.Process().memory_info().rss / 1e6
    assert memory.megabytes() == pytest.approx(resident, abs=0.01 * resident) and len(held) < 1e6 * resident


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_gaps_between_blocks_in_use_are_given_back() -> None:
    printed = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, text=True, check=True).stdout
    assert float(printed.split()[0]) > 150
