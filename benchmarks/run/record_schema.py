"""What a run's record holds, checked wherever one is read; a record that is not whole reads as "damaged"."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.utils.files import read_regular
from benchmarks.utils.kinds import (
    AMOUNT,
    BEST,
    COUNT,
    FLAG,
    LINE,
    METRICS,
    NAMES,
    TEXT,
    Kind,
    is_measured,
    maps_to,
    misfit,
    shown,
)
from benchmarks.utils.metrics import CONSTANT

Record = dict[str, Any]

DAMAGED = "damaged"
"""Status that a record has when it is read and is not whole; none is written with it."""
STATUSES = ("done", "diverged", "failed")
_NAMED_AS = {"config_hash": "identity"}
_OWN_FOLDER = re.compile(r"seed(\d+)-([0-9a-f]{12})")


_INPUTS = Kind(
    "checksums of data and plug-ins",
    lambda value: isinstance(value, dict) and all(NAMES.fits(value.get(part)) for part in ("data", "plugins")),
)
_USES = Kind(
    "what the rule uses",
    lambda value: (
        value == {}
        or (
            isinstance(value, dict)
            and all(LINE.fits(value.get(name)) for name in ("forward_weights", "state"))
            and all(AMOUNT.fits(value.get(name)) for name in ("bp_batches", "extra_forwards"))
            and FLAG.fits(value.get("sequential"))
            and COUNT.fits(value.get("waves", 0))  # records from before there were waves lack it
        )
    ),
)
_DATA = Kind(
    "a data set's name, kind, checksums and notes",
    lambda value: (
        isinstance(value, dict)
        and LINE.fits(value.get("name"))
        and LINE.fits(value.get("kind"))
        and NAMES.fits(value.get("checksums"))
        and maps_to(lambda note: LINE.fits(note) or is_measured(note))(value.get("notes"))
    ),
)

_REQUIRED: Mapping[str, Kind] = {
    **dict.fromkeys(("task", "model", "rule", "scale", "config_hash", "valid_metric", "device"), LINE),
    **dict.fromkeys(("seed", "best_epoch", "best_step", "epochs", "steps", "parameters", "threads"), COUNT),
    **dict.fromkeys(("seconds", "steps_per_second", "peak_memory_mb"), AMOUNT),
    "processes": COUNT,
    "uses": _USES,
    "data": _DATA,
    "best_valid": BEST,
    "higher_is_better": FLAG,
    "versions": NAMES,
    "commit": LINE,
    "git_dirty": FLAG,
    "metrics": METRICS,
}
_OPTIONAL: Mapping[str, Kind] = {
    "inputs": _INPUTS,
    "finished": LINE,
    "reason": LINE,
    "trace": TEXT,
    "committed": LINE,
}


def fault_in(content: object) -> str:
    """Say what is wrong with a record, "" if nothing is; fields that are not known here are let through."""
    if not isinstance(content, dict):
        return "is not an object"
    status = content.get("status")
    if status not in STATUSES:
        return "names no status" if status is None else f"has an unknown status, {shown(status)}"
    if fault := misfit(content, _REQUIRED, _OPTIONAL):
        return fault
    if status == "done" and content["best_valid"] is None:
        return "is of a finished run, but has no 'best_valid'"
    if status != "done" and not content.get("reason"):
        return f"gives no reason for '{status}'"
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # half of a surrogate pair
        return "holds text that cannot be printed"
    return ""


def of_another_run(record: Record, own: Mapping[str, Any]) -> str:
    """Say what tells a record from those of the run with these fields, "" if nothing does."""
    differing = [name for name, value in own.items() if record[name] != value]
    told = (f"{_NAMED_AS.get(name, name)} {shown(record[name])}" for name in differing)
    return f"is of another run ({', '.join(told)})" if differing else ""


def read_record(path: Path) -> Record | None:
    """Read the record in a file, None where there is none; a record of status "damaged" where it is not whole.

    In the folder of a run, a record of another run counts as damaged, too. The reason names the file and the fault.
    """
    try:
        content = json.loads(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except RecursionError:
        return _damaged(path, "is nested too deeply")
    except (OSError, ValueError) as error:
        return _damaged(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    fault = fault_in(content) or of_another_run(content, _own_fields(path))
    return _damaged(path, fault) if fault else content


def _own_fields(path: Path) -> dict[str, Any]:
    """Return the fields of a record that follow from its folder; none where it is not the folder of a run.

    A copy of a run's folder, beside no others, tells the seed and the identity alone.
    """
    runs, task, model, rule, folder = ("", "", "", "", "", *path.parts[:-1])[-5:]
    own = _OWN_FOLDER.fullmatch(folder)
    if not own:
        return {}
    names = {"task": task, "model": model, "rule": rule} if runs == "runs" else {}
    return {**names, "seed": int(own[1]), "config_hash": own[2]}


def _damaged(path: Path, fault: str) -> Record:
    """A record's fields for a run whose own cannot be trusted; names are those of its folder."""
    own = _own_fields(path)
    blank = {
        **dict.fromkeys(("task", "model", "rule", "scale", "config_hash"), ""),
        "seed": 0,
        "uses": {},
        "data": {"name": own.get("task", ""), "kind": "unknown", "checksums": {}, "notes": {}},
        "best_valid": None,
        "valid_metric": "",
        "higher_is_better": True,
        "device": "unknown",
        "versions": {},
        "commit": "unknown",
        "git_dirty": False,
        "metrics": {},
    }
    zeros = dict.fromkeys(
        ("best_epoch", "best_step", "epochs", "steps", "seconds", "steps_per_second", "peak_memory_mb", "parameters",
         "threads", "processes"), 0
    )  # fmt: skip
    reason = f"its record '{path}' {' '.join(fault.split())}; run.retry=true runs it again"
    return {**blank, **zeros, **own, "status": DAMAGED, "reason": reason}


def first_measured(records: Iterable[Record]) -> Record | None:
    """The first that names a metric; those of runs that did not get as far as training do not."""
    return next((record for record in records if record["valid_metric"]), None)


def predicts_constant(record: Mapping[str, Any]) -> bool:
    """Tell whether a finished run's model predicts the same for every test example (False where it was not checked)."""
    return bool(record.get("metrics", {}).get(f"test/{CONSTANT}"))


def whole(record: Record | None) -> bool:
    """Whether there is a record, and none that is damaged."""
    return record is not None and record["status"] != DAMAGED
