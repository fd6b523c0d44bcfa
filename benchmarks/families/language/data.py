"""A tokenised text, and how it is cut into columns and windows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.errors import DataError
from benchmarks.task import DataInfo

SPLITS = ("train", "valid", "test")
Ids = NDArray[np.integer]


@dataclass(frozen=True)
class Corpus:
    """A text as token ids.

    Attributes:
        info: what it is.
        ids: split → token ids in order, uint16 or uint32, possibly memory-mapped.
        words: split → number of words, the unit of the perplexity per word: the whitespace-separated tokens of the
            original text and one end of line for each line.
        vocabulary: number of different tokens.
        decode: token ids → text.
        encode: text → token ids.
    """

    info: DataInfo
    ids: Mapping[str, Ids]
    words: Mapping[str, int]
    vocabulary: int
    decode: Callable[[Sequence[int]], str]
    encode: Callable[[str], list[int]]


class Window(NamedTuple):
    """Tokens (columns, length) and those that follow each of them."""

    inputs: Tensor
    targets: Tensor


class Columns:
    """A text cut into columns of equal length that are read side by side, window after window.

    Column c holds the tokens c·L … (c + 1)·L - 1 with L the number of tokens over the number of columns, rounded down;
    the rest of the text is left out. The last window of an epoch may be shorter.

    Args:
        ids: the text.
        columns: how many.
        window: length of a window in tokens.
        groups: the columns of a window are handed out in so many batches.

    Raises:
        DataError: the text is too short.
    """

    def __init__(self, ids: Ids, columns: int, window: int, groups: int = 1) -> None:
        self.length = len(ids) // columns
        if self.length < 2:
            raise DataError(f"a text of {len(ids)} tokens is too short for {columns} columns")
        self.ids = ids[: columns * self.length].reshape(columns, self.length)
        self.window, self.groups = window, groups
        self._resident: Tensor | None = None

    def to(self, device: torch.device) -> None:
        """Keep the text on an accelerator; from main memory it is read piece by piece."""
        self._resident = torch.from_numpy(self.ids.astype(np.int32)).to(device) if device.type != "cpu" else None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-(self.length - 1) // self.window) * self.groups

    def batches(self, skip: int = 0) -> Iterator[Window]:
        """All windows in order, each in `groups` batches of columns, without the first `skip` batches."""
        rows = len(self.ids) // self.groups
        for number in range(skip, len(self)):
            window, group = divmod(number, self.groups)
            yield self._cut(slice(group * rows, (group + 1) * rows), window * self.window)

    def _cut(self, rows: slice, start: int) -> Window:
        stop = min(start + self.window, self.length - 1) + 1
        tokens = (
            torch.from_numpy(self.ids[rows, start:stop].astype(np.int64))
            if self._resident is None
            else self._resident[rows, start:stop].long()
        )
        return Window(tokens[:, :-1], tokens[:, 1:])


def windows_in_turn(ids: Ids, window: int, rows: int) -> Iterator[Window]:
    """The whole text, `rows` consecutive windows at a time; every token but the first is a target exactly once.

    The last windows come in a smaller batch, and what remains of the text in a shorter window of its own.

    Raises:
        DataError: fewer than two tokens.
    """
    if len(ids) < 2:
        raise DataError(f"a text of {len(ids)} tokens has nothing to predict")
    whole = (len(ids) - 1) // window
    for first in range(0, whole, rows):
        last = min(first + rows, whole)
        yield _pair(ids[first * window : last * window + 1], last - first)
    if (len(ids) - 1) % window:
        yield _pair(ids[whole * window :], 1)


def _pair(ids: Ids, rows: int) -> Window:
    tokens = torch.from_numpy(ids.astype(np.int64))
    return Window(tokens[:-1].view(rows, -1), tokens[1:].view(rows, -1))
