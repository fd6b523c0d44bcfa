"""Which device is timed."""

import pytest
import torch

from benchmarks.speed.measure import seconds_of, time_steps


def test_steps_on_a_second_gpu_are_timed_on_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the benches that take turns in one process; the current device is the first, which does nothing."""
    device = torch.device("cuda:1")
    waited: list[object] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.where = ""

        def record(self, stream: str = "stream of the current device") -> None:
            self.where = stream

        def elapsed_time(self, end: "Event") -> float:
            return 3000.0 if {self.where, end.where} == {"stream of cuda:1"} else 0.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda which: f"stream of {which}")
    assert time_steps(lambda: None, 2, device).wall == 1.5
    assert seconds_of(lambda: None, device) == 3.0
    assert waited == [device] * 4
