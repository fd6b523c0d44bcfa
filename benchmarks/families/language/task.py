"""Task of language modelling: predict the next token."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.language.data import Columns, Corpus, Window, sequential_windows
from benchmarks.families.language.stand_in.corpus import generate
from benchmarks.families.language.texts import SOURCES, find_text
from benchmarks.families.language.tokens import tokenised
from benchmarks.registry import TASKS
from benchmarks.task import Task, constant_predictions, cut_rows
from benchmarks.utils.values import check_least

ALIGNMENT_COLUMNS = 4


class LanguageModelling(Task):
    """Next-token prediction in windows; no state is carried from one window to the next.

    Args:
        name: "wikitext103", "wikitext2", "enwiki2015" or "plain_text".
        seed: seed of the run; text and order of the windows do not depend on it.
        source: "real" or "stand_in".
        data_dir: folder of the data sets.
        download: whether to fetch a missing text.
        columns: number of columns of the training text, see `Columns`.
        window: tokens in a window.
        groups: number of batches per window, whose gradients are to be accumulated.
        vocabulary: greatest number of tokens of the byte-pair encoding.
        lowercase: whether to lower-case the text first.
        folder: folder of a plain text, relative to `data_dir` or absolute.
        cache_dir: folder of the cached token ids; "" for $DFA_CACHE_DIR or the user's cache folder.
        stand_in_tokens, stand_in_seed: number of training tokens and seed of the stand-in.

    Raises:
        ConfigError: an option is out of range.
        DataError: the text is missing, unreadable or too short.
    """

    metric: ClassVar[str] = "perplexity"
    higher_is_better: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        source: str,
        data_dir: Path,
        download: bool = False,
        columns: int = 64,
        window: int = 128,
        groups: int = 1,
        vocabulary: int = 32_000,
        lowercase: bool = True,
        folder: str = "text",
        cache_dir: str = "",
        stand_in_tokens: int = 400_000,
        stand_in_seed: int = 0,
    ) -> None:
        for option, value in {"columns": columns, "window": window, "groups": groups}.items():
            check_least(f"task option {option}", value, 1)
        if columns % groups:
            raise ConfigError(
                f"task option groups (trainer.accumulate): {columns} columns cannot be divided into {groups} groups"
            )
        if source == "stand_in":
            self.corpus: Corpus = generate(name, stand_in_tokens, window, stand_in_seed)
        else:
            text = find_text(name, data_dir, folder, download)
            self.corpus = tokenised(text, vocabulary, lowercase, cache_dir)
        for split in ("valid", "test"):
            tokens, words = len(self.corpus.ids[split]), self.corpus.words[split]
            if min(tokens, words) < 2:
                raise DataError(f"the {split} text is too short: {tokens} tokens, {words} words")
        self.info = self.corpus.info
        self.window, self.rows = window, columns // groups
        self.train = Columns(self.corpus.ids["train"], columns, window, groups)
        self.device = torch.device("cpu")

    def model_options(self) -> dict[str, Any]:
        """Return the number of tokens and the length of a window."""
        return {"vocabulary": self.corpus.vocabulary, "window": self.window}

    def to(self, device: torch.device) -> None:
        """Move the training text to `device`."""
        self.device = device
        self.train.to(device)

    def steps_per_epoch(self) -> int:
        """Return the number of training batches."""
        return len(self.train)

    def train_batches(self, epoch: int, skip: int = 0) -> Iterator[Window]:
        """Yield the windows in the order of the text, the same in every epoch."""
        return self.train.batches(skip)

    def loss(self, model: nn.Module, batch: Window) -> Tensor:
        """Return the mean cross-entropy in nats per token."""
        scores: Tensor = model(batch.inputs)
        return F.cross_entropy(scores.flatten(0, 1), batch.targets.flatten())

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return perplexity per token and per word, and loss (nats per token), over all tokens but the first.

        Predictions are constant if the same token is the likeliest everywhere.

        The first token counts as one word, as in WikiText, which starts with an empty line.
        """
        total, tokens = 0.0, 0
        likeliest: set[float] = set()
        for inputs, targets in sequential_windows(self.corpus.ids[split], self.window, self.rows):
            scores = model(inputs.to(self.device)).flatten(0, 1).float()
            total += float(F.cross_entropy(scores, targets.flatten().to(self.device), reduction="sum"))
            tokens += targets.numel()
            if len(likeliest) < 2:  # two different ones settle it; the argmax is a fifth of an evaluation's time
                likeliest |= {token.item() for token in scores.argmax(dim=1).aminmax()}
        return {
            "perplexity": _exp(total / tokens),
            "word_perplexity": _exp(total / (self.corpus.words[split] - 1)),
            "loss": total / tokens,
            **constant_predictions(torch.tensor(sorted(likeliest))),
        }

    def alignment_loss(self, model: nn.Module) -> Tensor:
        """Return the loss on the first `ALIGNMENT_COLUMNS` windows of the validation text."""
        windows = sequential_windows(self.corpus.ids["valid"], self.window, ALIGNMENT_COLUMNS)
        inputs, targets = next(windows)
        return self.loss(model, Window(inputs.to(self.device), targets.to(self.device)))

    def share(self, batch: Window, rank: int, world: int) -> tuple[Window, float]:
        """Return the columns of process `rank` and their share of the batch."""
        columns, weight = cut_rows(len(batch.inputs), rank, world)
        return Window(batch.inputs[columns], batch.targets[columns]), weight


def _exp(loss: float) -> float:
    """Return e to the loss; infinite beyond the range of a float."""
    return math.exp(loss) if loss < 700 else math.inf


for _name in SOURCES:
    TASKS.register(_name)(partial(LanguageModelling, _name))
