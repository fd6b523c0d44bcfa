"""What an archive holds, checked when one is read: how its table was made, and in each row a run."""

from collections.abc import Mapping
from typing import Any

from benchmarks.config import SCALES, identity_of
from benchmarks.run.history import fault_in_rows, shortfall
from benchmarks.run.record_schema import fault_in, of_another_run
from benchmarks.utils.kinds import COUNT, LINE, Kind, misfit

COLUMNS = ("identity", "config", "record", "history")
"""Columns from which all others follow."""
HOW: Mapping[str, Kind] = {
    "scale": Kind(f"one of {', '.join(SCALES)}", lambda value: value in SCALES),
    "why": LINE,
    "seeds": Kind("a count or null", lambda value: value is None or (COUNT.fits(value) and value > 0)),
    "rules": Kind("a list of names", lambda value: isinstance(value, list) and all(map(LINE.fits, value))),
}
_SECTION = Kind("a section of a configuration", lambda value: isinstance(value, dict))
_CHOSEN = dict.fromkeys(("task", "model", "rule"), _SECTION)
_OTHERS = dict.fromkeys(("optimizer", "schedule", "trainer"), _SECTION)
_OPTIONS = {"options": Kind("options by name", lambda value: isinstance(value, dict))}


def fault_in_run(key: str, config: Any, record: Any, history: Any) -> str:
    """Say what is wrong with a row, "" if nothing is: no part may be another run's than the one that it names.

    Args:
        key: the row's identity.
        config, record, history: see `ArchivedRun`, as they were read.
    """
    if fault := misfit(config, _CHOSEN, _OTHERS) or misfit(config["rule"], _OPTIONS):
        return f"has a configuration that {fault}"
    if (found := identity_of(config)) != key:
        return f"has the configuration of another run (identity {found})"
    own = {name: config[name].get("name") for name in _CHOSEN}
    own |= {name: config.get(name) for name in ("seed", "scale")}
    if fault := fault_in(record) or of_another_run(record, {**own, "config_hash": key}):
        return f"has a record that {fault}"
    fault = fault_in_rows(history) or (shortfall(history, record["steps"]) if record["status"] == "done" else "")
    return f"has a history that {fault}" if fault else ""
