"""The stand-in: a text of the generated language, with what the best possible predictions of it would score."""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import DataError
from benchmarks.families.language.data import SPLITS, Corpus, Ids
from benchmarks.families.language.stand_in.grammar import Grammar, Recipe
from benchmarks.families.language.stand_in.markov import Source
from benchmarks.task import DataInfo

HELD_OUT_SHARE = 0.05


def generate(name: str, tokens: int, window: int, seed: int) -> Corpus:
    """A text of `tokens` words for training and 5 % of that each for validation and test.

    Every word is a token, so that perplexities per token and per word are the same. The notes hold perplexities:
    `best_perplexity` of the oracle that sees what a model sees on validation, windows of `window` tokens;
    `entropy_perplexity`, e to the entropy rate, which it would reach with all words before; and those of the best
    predictions from the word before (`bigram_perplexity`) and from nothing (`unigram_perplexity`).

    Raises:
        DataError: too few tokens to make windows of.
    """
    held_out = int(tokens * HELD_OUT_SHARE)
    if held_out <= window:
        raise DataError(f"a stand-in of {tokens} tokens is too short for windows of {window}")
    grammar, source = _language()
    generators = np.random.default_rng(seed).spawn(len(SPLITS))
    sizes = dict(zip(SPLITS, (tokens, held_out, held_out), strict=True))
    ids: dict[str, Ids] = {
        split: source.sample(size, generator)
        for (split, size), generator in zip(sizes.items(), generators, strict=True)
    }
    best = source.window_losses(_whole_windows(ids["valid"], window)).mean()
    notes: dict[str, float | str] = {
        "tokens": float(tokens),
        "vocabulary": float(source.vocabulary),
        "best_perplexity": math.exp(best),
        "entropy_perplexity": math.exp(source.entropy_rate),
        "bigram_perplexity": math.exp(source.bigram_entropy),
        "unigram_perplexity": math.exp(source.unigram_entropy),
    }
    numbers = {word: number for number, word in enumerate(grammar.words)}
    return Corpus(
        info=DataInfo(name, "stand-in", notes=notes),
        ids=ids,
        words={split: len(text) for split, text in ids.items()},
        vocabulary=source.vocabulary,
        decode=lambda tokens: " ".join(grammar.words[token] for token in tokens),
        encode=lambda text: [_number(word, numbers) for word in text.split()],
    )


def _number(word: str, numbers: Mapping[str, int]) -> int:
    if word not in numbers:
        raise DataError(f"the generated language has no word '{word}'; it has {', '.join(list(numbers)[:8])}, …")
    return numbers[word]


@cache
def _language() -> tuple[Grammar, Source]:
    grammar = Grammar(Recipe())
    return grammar, Source(grammar)


def _whole_windows(ids: Ids, window: int) -> NDArray[np.integer]:
    """(windows, window + 1): each window with the word after it."""
    return np.lib.stride_tricks.sliding_window_view(ids, window + 1)[::window]
