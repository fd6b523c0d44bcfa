"""Stand-in: a generated text with the perplexities of the best possible predictions."""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import DataError
from benchmarks.families.language.data import SPLITS, Corpus, Ids
from benchmarks.families.language.stand_in.grammar import Grammar, Recipe
from benchmarks.families.language.stand_in.markov import MarkovSource
from benchmarks.task import DataInfo

HELD_OUT_SHARE = 0.05


def generate(name: str, tokens: int, window: int, seed: int) -> Corpus:
    """Generate a text; every word is a token, so perplexities per token and per word are equal.

    The notes hold the perplexities of optimal predictors: `best_perplexity`, on the validation text, from the words
    before in a window; `entropy_perplexity`, e to the entropy rate, from all words before; `bigram_perplexity`, from
    one word before; and `unigram_perplexity`, without context.

    Args:
        name: name of the data set that the text stands for.
        tokens: training tokens; validation and test have 5 % of that each.
        window: length of the windows in tokens.
        seed: determines the text; the language is always the same.

    Raises:
        DataError: the held-out texts are not longer than a window.
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
        raise DataError(f"the stand-in has no word '{word}'; its words are {', '.join(list(numbers)[:8])}, …")
    return numbers[word]


@cache
def _language() -> tuple[Grammar, MarkovSource]:
    grammar = Grammar(Recipe())
    return grammar, MarkovSource(grammar)


def _whole_windows(ids: Ids, window: int) -> NDArray[np.integer]:
    """Return all whole windows, each with the word after it, (windows, window + 1)."""
    return np.lib.stride_tricks.sliding_window_view(ids, window + 1)[::window]
