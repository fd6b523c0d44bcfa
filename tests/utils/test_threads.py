"""Work in threads: results in order, few items at once, errors at once."""

import threading
from collections.abc import Iterator

import pytest

from benchmarks.utils.threads import in_threads


def test_results_come_in_order_and_items_are_taken_as_threads_become_free() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_threads(lambda item: item * item, items(), threads=2)
    assert next(results) == 0 and len(taken) <= 5
    assert list(results) == [item * item for item in range(1, 100)] and len(taken) == 100


def test_several_are_at_work_at_once() -> None:
    together = threading.Barrier(3, timeout=20)
    assert len(list(in_threads(lambda item: together.wait(), range(9), threads=3))) == 9


def test_an_error_is_raised_and_what_has_not_begun_is_left() -> None:
    begun: list[int] = []

    def fail(item: int) -> None:
        begun.append(item)
        raise ValueError(str(item))

    with pytest.raises(ValueError, match=r"^0$"):
        list(in_threads(fail, range(100), threads=2))
    assert len(begun) < 10
