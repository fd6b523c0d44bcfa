"""Every run keeps its identity, and with it its records, whatever becomes of the files that configure it.

Composing them all takes minutes. By default the test takes runs until every choice that blocks can tell apart has been
met: each model under each rule and with each task and schedule, at each scale. DFA_TEST_ALL_IDENTITIES=1 takes all.
"""

import os
from collections.abc import Iterable

import pytest

from benchmarks.config import SCALES
from tests.helpers.identities import RULES, Case, cases, expected


def _choices(case: Case) -> set[tuple[str, ...]]:
    """Combinations of choices that occur in the runs of a case; rules that no block names count as one."""
    found: set[tuple[str, ...]] = set()
    for run in case.runs:
        made = dict(override.split("=", 1) for override in run if "=" in override)
        model, scale, rule = made.get("model", ""), made["scale"], made.get("rule", "")
        found.add(("rule", model, scale, rule if rule in RULES else "identity"))
        found.add(("task", model, scale, made.get("task", ""), made.get("schedule", "")))
    return found


def _sample(listed: Iterable[Case]) -> list[Case]:
    """Leave out the cases that add no combination of choices to the earlier ones."""
    met: set[tuple[str, ...]] = set()
    sample: list[Case] = []
    for case in sorted(listed, key=lambda case: len(case.runs)):
        if not (choices := _choices(case)) <= met:
            met |= choices
            sample.append(case)
    return sample


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scale", SCALES)
def test_every_run_keeps_its_identity(scale: str) -> None:
    listed = expected()
    at_scale = [case for case in cases() if f"scale={scale}" in case.runs[0]]
    looked_at = at_scale if os.environ.get("DFA_TEST_ALL_IDENTITIES") else _sample(at_scale)
    assert looked_at
    changed = [case.name for case in looked_at if case.identities() != listed.get(case.name)]
    assert not changed


def test_every_run_is_listed() -> None:
    assert {case.name for case in cases()} == set(expected())
