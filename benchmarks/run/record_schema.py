"""What a run's record holds, checked wherever one is read; a record that is not whole reads as "damaged"."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.utils.files import read_regular
from benchmarks.utils.metrics import CONSTANT
from benchmarks.utils.values import is_number

Record = dict[str, Any]

DAMAGED = "damaged"
"""Status that a record has when it is read and is not whole; none is written with it."""
STATUSES = ("done", "diverged", "failed")
_OWN_FOLDER = re.compile(r"seed(\d+)-([0-9a-f]{12})")


@dataclass(frozen=True)
class _Kind:
    """Kind of value: what it is called, and whether a value is one."""

    name: str
    fits: Callable[[Any], bool]


def _is_measured(value: Any) -> bool:
    """Whether it is a number, infinite or not a number included: metrics are what a run came to."""
    return is_number(value) or isinstance(value, float)


def _maps_to(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


_LINE = _Kind("a line of text", lambda value: isinstance(value, str) and all(ord(sign) >= 32 for sign in value))
_TEXT = _Kind("text", lambda value: isinstance(value, str))
_COUNT = _Kind("a count", lambda value: type(value) is int and 0 <= value < 2**63)
_AMOUNT = _Kind("a number, finite and not negative", lambda value: is_number(value) and value >= 0)
_FLAG = _Kind("true or false", lambda value: isinstance(value, bool))
_BEST = _Kind("a number or null", lambda value: value is None or (_is_measured(value) and not math.isnan(value)))
_METRICS = _Kind("names with numbers", _maps_to(_is_measured))
_NAMES = _Kind("names with texts", _maps_to(_LINE.fits))
_INPUTS = _Kind(
    "checksums of data and plug-ins",
    lambda value: isinstance(value, dict) and all(_NAMES.fits(value.get(part)) for part in ("data", "plugins")),
)
_USES = _Kind(
    "what the rule uses",
    lambda value: (
        value == {}
        or (
            isinstance(value, dict)
            and all(_LINE.fits(value.get(name)) for name in ("forward_weights", "state"))
            and all(_AMOUNT.fits(value.get(name)) for name in ("bp_batches", "extra_forwards"))
            and _FLAG.fits(value.get("sequential"))
        )
    ),
)
_DATA = _Kind(
    "a data set's name, kind, checksums and notes",
    lambda value: (
        isinstance(value, dict)
        and _LINE.fits(value.get("name"))
        and _LINE.fits(value.get("kind"))
        and _NAMES.fits(value.get("checksums"))
        and _maps_to(lambda note: _LINE.fits(note) or _is_measured(note))(value.get("notes"))
    ),
)

_REQUIRED: Mapping[str, _Kind] = {
    **dict.fromkeys(("task", "model", "rule", "scale", "config_hash", "valid_metric", "device"), _LINE),
    **dict.fromkeys(("seed", "best_epoch", "best_step", "epochs", "steps", "parameters", "threads"), _COUNT),
    **dict.fromkeys(("seconds", "steps_per_second", "peak_memory_mb"), _AMOUNT),
    "processes": _COUNT,
    "uses": _USES,
    "data": _DATA,
    "best_valid": _BEST,
    "higher_is_better": _FLAG,
    "versions": _NAMES,
    "commit": _LINE,
    "git_dirty": _FLAG,
    "metrics": _METRICS,
}
_OPTIONAL: Mapping[str, _Kind] = {
    "inputs": _INPUTS,
    "finished": _LINE,
    "reason": _LINE,
    "trace": _TEXT,
    "committed": _LINE,
}


def fault_in(content: object) -> str:
    """Say what is wrong with a record, "" if nothing is; fields that are not known here are let through."""
    if not isinstance(content, dict):
        return "is not an object"
    status = content.get("status")
    if status not in STATUSES:
        return "names no status" if status is None else f"has an unknown status, {_shown(status)}"
    for name, kind in _REQUIRED.items():
        if name not in content:
            return f"lacks '{name}'"
        if not kind.fits(content[name]):
            return f"has {_shown(content[name])} for '{name}', which must be {kind.name}"
    for name, kind in _OPTIONAL.items():
        if name in content and not kind.fits(content[name]):
            return f"has {_shown(content[name])} for '{name}', which must be {kind.name}"
    if status == "done" and content["best_valid"] is None:
        return "is of a finished run, but has no 'best_valid'"
    if status != "done" and not content.get("reason"):
        return f"gives no reason for '{status}'"
    return ""


def read_record(path: Path) -> Record | None:
    """Read the record in a file, None where there is none; a record of status "damaged" where it is not whole.

    In the folder of a run, a record of another run counts as damaged, too. The reason names the file and the fault.
    """
    try:
        content = json.loads(read_regular(path))
        json.dumps(content, ensure_ascii=False).encode()  # half of a surrogate pair cannot be printed
    except (FileNotFoundError, NotADirectoryError):
        return None
    except RecursionError:
        return _damaged(path, "is nested too deeply")
    except (OSError, ValueError) as error:
        return _damaged(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    fault = fault_in(content) or _strange(content, path)
    return _damaged(path, fault) if fault else content


def _strange(record: Record, path: Path) -> str:
    """Say which other run a record in a run's folder belongs to, "" if none."""
    own = _OWN_FOLDER.fullmatch(path.parent.name)
    if own is None or (str(record["seed"]), record["config_hash"]) == own.groups():
        return ""
    return f"is of another run (seed {record['seed']}, identity {_shown(record['config_hash'])})"


def _damaged(path: Path, fault: str) -> Record:
    """A record's fields for a run whose own cannot be trusted; names are those of its folder."""
    task, model, rule, folder = ("", "", "", "", *path.parts[:-1])[-4:]
    own = _OWN_FOLDER.fullmatch(folder)
    names = {"task": task, "model": model, "rule": rule, "seed": int(own[1]) if own else 0}
    blank = {
        "scale": "",
        "config_hash": own[2] if own else "",
        "uses": {},
        "data": {"name": task, "kind": "unknown", "checksums": {}, "notes": {}},
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
    return {**names, **blank, **zeros, "status": DAMAGED, "reason": reason}


def first_measured(records: Iterable[Record]) -> Record | None:
    """The first that names a metric; those of runs that did not get as far as training do not."""
    return next((record for record in records if record["valid_metric"]), None)


def predicts_constant(record: Mapping[str, Any]) -> bool:
    """Tell whether a finished run's model predicts the same for every test example (False where it was not checked)."""
    return bool(record.get("metrics", {}).get(f"test/{CONSTANT}"))


def whole(record: Record | None) -> bool:
    """Whether there is a record, and none that is damaged."""
    return record is not None and record["status"] != DAMAGED


def _shown(value: object) -> str:
    """Show a value in a few characters."""
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
