"""Measurements of memory."""

import psutil
import pytest
import torch

from benchmarks.utils.machine import PeakMemory


def test_peak_memory_of_a_process_is_told_in_millions_of_bytes() -> None:
    memory = PeakMemory(torch.device("cpu"))
    held = torch.ones(400_000_000, dtype=torch.uint8)
    resident = psutil.Process().memory_info().rss / 1e6
    assert memory.megabytes() == pytest.approx(resident, abs=0.01 * resident) and len(held) < 1e6 * resident
