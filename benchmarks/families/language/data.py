"""Tokenised texts and their division into columns and windows."""

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
    """Text as token ids.

    Attributes:
        info: name, kind, checksums and notes of the data.
        ids: split → token ids in order, (tokens,) uint16 or uint32, possibly memory-mapped.
        words: split → number of words, the unit of the perplexity per word: whitespace-separated parts of the original
            text, plus one for the end of each line.
        vocabulary: number of different tokens.
        decode: function from token ids to text.
        encode: function from text to token ids.
    """

    info: DataInfo
    ids: Mapping[str, Ids]
    words: Mapping[str, int]
    vocabulary: int
    decode: Callable[[Sequence[int]], str]
    encode: Callable[[str], list[int]]


class Window(NamedTuple):
    """Batch of tokens.

    Attributes:
        inputs: token ids, (columns, length).
        targets: the token after each of them, the same shape.
    """

    inputs: Tensor
    targets: Tensor


class Columns:
    """Text divided into columns of equal length, which are read in parallel, window after window.

    Column c holds the tokens c·L … (c + 1)·L - 1 with L the number of tokens over the number of columns, rounded down;
    the rest of the text is left out. The last window of an epoch may be shorter.

    Args:
        ids: token ids of the text, (tokens,).
        columns: number of columns.
        window: length of a window in tokens.
        groups: number of batches into which the columns of a window are divided.

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
        """Copy the text to `device` unless it is the CPU, which reads it window by window."""
        self._resident = torch.from_numpy(self.ids.astype(np.int32)).to(device) if device.type != "cpu" else None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-(self.length - 1) // self.window) * self.groups

    def batches(self, skip: int = 0) -> Iterator[Window]:
        """Yield all windows in order, each in `groups` batches of columns, without the first `skip` batches."""
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


def sequential_windows(ids: Ids, window: int, rows: int) -> Iterator[Window]:
    """Yield the whole text in batches of `rows` consecutive windows; every token but the first is a target once.

    The last full windows may form a smaller batch; the rest of the text forms a shorter window.

    Args:
        ids: token ids of the text, (tokens,).
        window: length of a window in tokens.
        rows: windows per batch.

    Raises:
        DataError: the text has fewer than two tokens.
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
