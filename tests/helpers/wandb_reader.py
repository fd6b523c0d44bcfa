"""Reading offline copies back: wandb's own protocol buffers, from a log laid out as LevelDB's."""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK, _WHOLE, _LAST = 32768, 1, 4


@dataclass
class Copy:
    """One offline run.

    Attributes:
        run: its description, as wandb's `RunRecord`.
        config, summary: flat, "a/b" for nested keys.
        history: one flat dictionary for every line.
        artifacts: wandb's `ArtifactRecord`s.
        exit_codes: one, if the run was ended.
    """

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)


def read_copies(folder: Path) -> list[Copy]:
    """All offline runs in a folder, complete ones: the service writes its files in its own time."""
    copies = []
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        for _ in range(100):
            copy = _read(file)
            if copy.exit_codes:
                break
            time.sleep(0.1)
        copies.append(copy)
    return copies


def flat(content: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested dictionaries taken apart."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{key}/")
        else:
            found[f"{above}{key}"] = value
    return found


def _read(file: Path) -> Copy:
    copy = Copy()
    for entry in _records(file.read_bytes()):
        kind = entry.WhichOneof("record_type")
        if kind == "run":
            copy.run = entry.run
            copy.config |= _items(entry.run.config.update)
        elif kind == "config":
            copy.config |= _items(entry.config.update)
        elif kind == "summary":
            copy.summary |= _items(entry.summary.update)
        elif kind == "history":
            copy.history.append(_items(entry.history.item))
        elif kind == "artifact":
            copy.artifacts.append(entry.artifact)
        elif kind == "exit":
            copy.exit_codes.append(entry.exit.exit_code)
    return copy


def _records(content: bytes) -> list[Any]:
    """Seven bytes of header, then records in 32 KiB blocks."""
    from wandb.proto import wandb_internal_pb2

    position, part, records = 7, b"", []
    while position + 7 <= len(content):
        if (rest := _BLOCK - position % _BLOCK) < 7:  # too short for another header
            position += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += 7 + length
        part += content[position - length : position]
        if kind in (_WHOLE, _LAST):
            records.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return records


def _items(updates: Any) -> dict[str, Any]:
    nested = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in updates}
    return flat(nested)
