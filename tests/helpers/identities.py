"""The identity of every run that a table, a figure or a configuration's header asks for, and the expected list.

After a change that is meant to change them:  python -m tests.helpers.identities
"""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

from benchmarks.config import SCALES, compose_config, identity, resolve
from benchmarks.tables.figure import known_figures
from benchmarks.tables.missing_data import settle_data
from benchmarks.tables.schema import known_tables
from benchmarks.tables.targets import load_target
from benchmarks.utils.files import atomic_path
from benchmarks.utils.paths import CONFIG_DIR, REPOSITORY

EXPECTED = REPOSITORY / "tests" / "expected" / "identities.json"
RULES = ("bp", "dfa", "shallow", "identity")
"""Rules that configurations tell apart, and one they do not name."""


@dataclass(frozen=True)
class Case:
    """Runs, with seed 0, that are listed together.

    Attributes:
        name: "table_3 gcn/dfa:cora mini", or the overrides.
        runs: overrides of each run.
        stand_in: whether generated data may take the place of data that are not here.
    """

    name: str
    runs: tuple[tuple[str, ...], ...]
    stand_in: bool = True

    def identities(self) -> str:
        """Of each run where its data is at hand, and where it is not if that makes a difference."""
        return " ".join(_identities(frozenset(run), self.stand_in) for run in self.runs)


@cache
def _identities(overrides: frozenset[str], stand_in: bool) -> str:
    config = resolve(compose_config(sorted(overrides)))
    found: list[str] = []
    for missing in ("", "no data"):
        settled = deepcopy(config)
        settle_data(settled, missing, stand_in)
        found.append(identity(settled))
    return "/".join(dict.fromkeys(found))


def cases() -> Iterator[Case]:
    """Every cell at every scale that it has, then every combination of task, model and rule."""
    pairs = {_pair(line.split()) for line in _headers()}
    for name in (*known_tables(), *known_figures()):
        target = load_target(name)
        for cell in target.cells:
            pairs |= {_pair(list(run)) for run in cell.runs}
            for scale in SCALES:
                if runs := tuple((*run, f"scale={scale}") for run in cell.runs_at(scale)):
                    yield Case(f"{name} {cell.name} {scale}", runs, target.stand_in)
    for task, model in sorted(pairs):
        for rule in RULES if task and model else ():
            for scale in SCALES:
                overrides = (f"task={task}", f"model={model}", f"rule={rule}", f"scale={scale}")
                yield Case(" ".join(overrides), (overrides,))


def _headers() -> list[str]:
    """The commands that configurations name in their comments."""
    lines = [line for file in sorted(CONFIG_DIR.glob("*/*.yaml")) for line in file.read_text("utf-8").splitlines()]
    return [line for line in lines if re.match("#.* (train|search) ", line)]


def _pair(overrides: list[str]) -> tuple[str, str]:
    choices = dict(item.split("=", 1) for item in overrides if "=" in item)
    return choices.get("task", ""), choices.get("model", "").split(",")[0]


def expected() -> dict[str, str]:
    """What is committed: name of a case → its identities."""
    listed: dict[str, str] = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return listed


if __name__ == "__main__":
    with atomic_path(EXPECTED) as temporary:
        found = {case.name: case.identities() for case in cases()}
        temporary.write_text(json.dumps(found, indent=0, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
