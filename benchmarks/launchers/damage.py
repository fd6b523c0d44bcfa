"""Damage to the histories of runs that nobody is at work on, as a disk or a careless copy might do it."""

import random
from collections.abc import Callable
from pathlib import Path

from benchmarks.run.records import RunBusy, RunFolder

_DAMAGES: tuple[Callable[[bytes], bytes | None], ...] = (
    lambda content: None,
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: content[:-5],
    lambda content: bytes(len(content)),
    lambda content: b"\xff\xfe not a history\n",
    lambda content: content.replace(b"0", b"1"),
)
"""What becomes of a history's content; None: the file is gone."""


def damage_a_history(results: Path, chance: random.Random) -> Path | None:
    """Damage the history of a run that has a checkpoint to go on from; return its path, None if there is no such run.

    Args:
        results: the results folder.
        chance: what draws the run and the damage.
    """
    histories = sorted(results.glob("runs/*/*/*/*/metrics.jsonl"))
    chance.shuffle(histories)
    for path in histories:
        folder = RunFolder(path.parent)
        try:
            with folder.locked(wait=False):
                if folder.result.exists() or not folder.has_checkpoint or not path.stat().st_size:
                    continue
                content = chance.choice(_DAMAGES)(path.read_bytes())
                path.unlink() if content is None else path.write_bytes(content)
                return path
        except RunBusy:
            continue
    return None
