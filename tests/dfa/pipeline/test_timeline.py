"""Predicted timelines against closed forms."""

import itertools

import pytest

from dfa.pipeline.timeline import SCHEDULES, Costs, predict

F, B = 1.0, 2.0
PAIRS = [(stages, microbatches) for stages in (1, 2, 3, 8) for microbatches in (1, 2, 4, 8, 16)]


@pytest.mark.parametrize(("stages", "microbatches"), PAIRS)
def test_lengths(stages: int, microbatches: int) -> None:
    length = {name: predict(name, microbatches, [Costs(F, B)] * stages).length for name in SCHEDULES}
    assert length["gpipe"] == length["1f1b"] == pytest.approx((microbatches + stages - 1) * (F + B))
    assert length["feedback"] == pytest.approx((stages - 1) * F + microbatches * (F + B))
    if microbatches >= stages:  # Qi et al. (2024): each of S - 1 steps idles for forward + inputs - weights
        assert length["zero_bubble"] == pytest.approx(microbatches * (F + B) + (stages - 1) * (F + B / 2 - B / 2))
    else:
        assert length["feedback"] <= length["zero_bubble"] <= length["1f1b"]


@pytest.mark.parametrize(("microbatches", "ratio"), [(1, 0.67), (2, 0.78), (4, 0.87)])
def test_two_stages_with_a_backward_twice_as_long(microbatches: int, ratio: float) -> None:
    costs = [Costs(F, 2 * F)] * 2
    found = predict("feedback", microbatches, costs).length / predict("1f1b", microbatches, costs).length
    assert found == pytest.approx(ratio, abs=0.005)


def test_ways_of_activations_gradients_and_errors() -> None:
    costs = [Costs(F, B, send=0.25, broadcast=0.5)] * 3
    assert predict("gpipe", 1, costs).length == 3 * (F + B) + 4 * 0.25
    assert predict("feedback", 1, costs).length == 3 * F + 2 * 0.25 + 0.5 + B
    shorter = [Costs(F, B, own=1.25)] * 3
    assert predict("feedback", 1, shorter).length == 3 * F + 1.25
    assert predict("1f1b", 3, shorter).length == 5 * (F + B)


def test_the_slowest_stage_decides() -> None:
    costs = [Costs(F, B), Costs(3 * F, 3 * B), Costs(F, B)]
    assert predict("gpipe", 50, costs).length == 50 * 3 * (F + B) + 2 * (F + B)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_stages_do_everything_once_and_one_thing_at_a_time(schedule: str) -> None:
    timeline = predict(schedule, 5, [Costs(F, B, own=B)] * 3)
    kinds = ("forward", "backward", "weights")[: 3 if schedule == "zero_bubble" else 2]
    done = [(interval.stage, interval.kind, interval.microbatch) for interval in timeline.intervals]
    assert sorted(done) == sorted(itertools.product(range(3), kinds, range(5)))
    for stage in range(3):
        own = sorted((each.start, each.end) for each in timeline.intervals if each.stage == stage)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(own))
    assert timeline.idle(3) == pytest.approx(1 - 5 * (F + B) / timeline.length)


def test_one_micro_batch_of_the_schedules_in_full() -> None:
    def shown(schedule: str) -> list[tuple[int, str, float, float]]:
        intervals = predict(schedule, 1, [Costs(F, B)] * 2).intervals
        return sorted((each.stage, each.kind, each.start, each.end) for each in intervals)

    forward = [(0, "forward", 0, 1), (1, "forward", 1, 2)]
    assert shown("gpipe") == sorted([*forward, (1, "backward", 2, 4), (0, "backward", 4, 6)])
    assert shown("feedback") == sorted([*forward, (1, "backward", 2, 4), (0, "backward", 2, 4)])
    weights = [(1, "weights", 3, 4), (0, "weights", 4, 5)]
    assert shown("zero_bubble") == sorted([*forward, (1, "backward", 2, 3), (0, "backward", 3, 4), *weights])


@pytest.mark.parametrize(("schedule", "microbatches", "stages"), [("fastest", 1, 1), ("gpipe", 0, 1), ("gpipe", 1, 0)])
def test_what_cannot_be_predicted(schedule: str, microbatches: int, stages: int) -> None:
    with pytest.raises(ValueError, match=r"unknown schedule|at least one"):
        predict(schedule, microbatches, [Costs()] * stages)
