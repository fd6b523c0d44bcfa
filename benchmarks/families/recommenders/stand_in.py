"""Stand-in: a generated click log with known click probabilities, hence known best possible scores.

The fields are those of Criteo, 13 integers and 26 categories with missing values and heavy-tailed vocabularies. Rows
are independent, and the true logit of a row is

    bias + Σ_f a_f z_f  +  Σ_triples [ β Σ_pairs z z' + γ z z' z'' ],

with z_f a random factor of the value of field f, drawn once per value. The third-order term of a triple is orthogonal
to all sums of pairwise terms, so a factorisation machine cannot represent it. The same factors also have first- and
second-order terms, which make the third-order term learnable by gradient descent, unlike a pure parity. Missing values
and those too rare to survive preprocessing have the factor 0, so preprocessing loses no information.

`write_text_log` writes such a log as text in Criteo's format.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.errors import ConfigError
from benchmarks.families.recommenders.criteo.parse import CATEGORIES, FIELDS, INTEGERS
from benchmarks.families.recommenders.criteo.vocabulary import bucket_of
from benchmarks.utils.values import check_least

# Triples of interacting category fields; `_vocabularies` sets their sizes.
TRIPLES = ((13, 14, 15), (16, 17, 18), (19, 20, 21), (22, 23, 24))
_INTERACTING = sorted(field for triple in TRIPLES for field in triple)
_PILOT_ROWS = 50_000


@dataclass(frozen=True)
class ClickRows:
    """Synthetic rows.

    Attributes:
        labels: 0 or 1, (rows,).
        integers: values of the integer fields, (rows, 13).
        categories: rank of the value in its field's vocabulary, 0 the most frequent, (rows, 26).
        missing: whether each cell is empty, (rows, 39).
        probability: true probability of a click, (rows,).
    """

    labels: NDArray[np.uint8]
    integers: NDArray[np.int64]
    categories: NDArray[np.int64]
    missing: NDArray[np.bool_]
    probability: NDArray[np.float64]


class ClickModel:
    """Distribution of rows.

    Args:
        seed: determines the factors and the rows.
        vocabulary: number of values of each large category field; interacting fields have 20.
        first, second, third: scale of the terms of each order.
        click_rate: mean click probability.

    Raises:
        ConfigError: `vocabulary` or `click_rate` is out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        vocabulary: int = 2000,
        first: float = 0.4,
        second: float = 0.35,
        third: float = 0.6,
        click_rate: float = 0.25,
    ) -> None:
        check_least("vocabulary", vocabulary, 10)
        if not 0 < click_rate < 1:
            raise ConfigError(f"click_rate must lie between 0 and 1, got {click_rate}")
        self.seed = seed
        self.second, self.third = second, third
        draw = np.random.default_rng([seed, 0])
        self.vocabularies = _vocabularies(vocabulary)
        self.cumulative = [_zipf(size, 0.6 if size < 100 else 1.1) for size in self.vocabularies]
        self.factors = [_factors(draw, np.diff(steps, prepend=0.0)) for steps in self.cumulative]
        self.integer_centre = draw.uniform(0.5, 4.5, INTEGERS)
        self.integer_missing = draw.choice([0.0, 0.05, 0.2, 0.45], INTEGERS)
        self.category_missing = np.where(
            np.isin(np.arange(INTEGERS, FIELDS), _INTERACTING), 0.0, draw.choice([0.0, 0.03, 0.4], CATEGORIES)
        )
        self.first = np.full(FIELDS, first) * draw.choice([0.6, 1.0, 1.4], FIELDS)
        self.bias = 0.0
        pilot = self._logit(*self._cells(np.random.default_rng([seed, 1]), _PILOT_ROWS))
        self.bias = _bias_for(pilot, click_rate)

    def chunks(self, rows: int, chunk: int = 250_000) -> Iterator[ClickRows]:
        """Yield `rows` rows in pieces of at most `chunk`, as a function of seed, rows and chunk."""
        check_least("rows", rows, 1)
        for start in range(0, rows, chunk):
            yield self.draw(min(chunk, rows - start), stream=start // chunk)

    def draw(self, rows: int, stream: int = 0) -> ClickRows:
        """Draw `rows` rows from the random stream with the given number."""
        draw = np.random.default_rng([self.seed, 2, stream])
        integers, categories, missing = self._cells(draw, rows)
        probability = 1 / (1 + np.exp(-self._logit(integers, categories, missing)))
        labels = (draw.random(rows) < probability).astype(np.uint8)
        return ClickRows(labels, integers, categories, missing, probability)

    def _cells(
        self, draw: np.random.Generator, rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        logarithms = draw.normal(self.integer_centre, 1.3, (rows, INTEGERS))
        integers = np.floor(np.exp(logarithms)).astype(np.int64) - 1
        uniform = draw.random((rows, CATEGORIES))
        columns = [np.searchsorted(steps, uniform[:, f]) for f, steps in enumerate(self.cumulative)]
        shares = np.concatenate([self.integer_missing, self.category_missing])
        missing = draw.random((rows, FIELDS)) < shares
        return integers, np.stack(columns, axis=1), missing

    def _logit(
        self, integers: NDArray[np.int64], categories: NDArray[np.int64], missing: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        z = np.empty((len(integers), FIELDS))
        # Constant within each bucket of the preprocessing, which therefore loses no information.
        buckets = bucket_of(integers)
        z[:, :INTEGERS] = np.where(integers > 2, np.clip((buckets - 8) / 8, -1, 2), buckets / 3)
        for f, factors in enumerate(self.factors):
            z[:, INTEGERS + f] = factors[categories[:, f]]
        z[missing] = 0
        logit = self.bias + z @ self.first
        for triple in TRIPLES:
            a, b, c = (z[:, field] for field in triple)
            logit += self.second * (a * b + b * c + a * c) + self.third * a * b * c
        return logit


def expected_auc(probability: NDArray[np.float64], score: NDArray[np.float64] | None = None) -> float:
    """Return the AUC of a score in expectation over the labels.

    A ratio of expectations: Σ_ij p_i (1 − p_j) ([s_i > s_j] + ½ [s_i = s_j]) / Σ_ij p_i (1 − p_j), i ≠ j.

    Args:
        probability: p, the true click probabilities, (rows,).
        score: s, (rows,); None for p itself, which gives the Bayes AUC.
    """
    score = probability if score is None else score
    order = np.argsort(score, kind="stable")
    p, s = probability[order], score[order]
    starts = np.unique(s, return_index=True)[1]
    clicks = np.add.reduceat(p, starts)
    others = np.add.reduceat(1 - p, starts)
    both = np.add.reduceat(p * (1 - p), starts)  # to be subtracted: i = j
    below = np.cumsum(others) - others
    wins = np.sum(clicks * below + 0.5 * (clicks * others - both))
    total = p.sum() * (1 - p).sum() - np.sum(p * (1 - p))
    return float(wins / total)


def expected_log_loss(probability: NDArray[np.float64], predicted: NDArray[np.float64] | None = None) -> float:
    """Return the mean cross-entropy in nats of a prediction in expectation over the labels.

    Args:
        probability: the true click probabilities, (rows,).
        predicted: predicted click probabilities, (rows,); None for the true ones, which have the least log loss.
    """
    q = np.clip(probability if predicted is None else predicted, 1e-15, 1 - 1e-15)
    return float(np.mean(-probability * np.log(q) - (1 - probability) * np.log1p(-q)))


def write_text_log(model: ClickModel, rows: int, path: Path, chunk: int = 250_000) -> NDArray[np.float64]:
    """Write rows in Criteo's format: label, 13 integers and 26 categories of 8 hexadecimal digits, separated by tabs.

    Args:
        model: distribution of the rows.
        rows: number of rows.
        path: file to write.
        chunk: rows drawn at once.

    Returns:
        The true click probabilities, (rows,).
    """
    tokens = [_tokens(field, size) for field, size in enumerate(model.vocabularies)]
    probabilities = []
    with path.open("wb") as file:
        for piece in model.chunks(rows, chunk):
            _frame(piece, tokens).write_csv(file, include_header=False, separator="\t", null_value="")
            probabilities.append(piece.probability)
    return np.concatenate(probabilities)


def _vocabularies(large: int) -> list[int]:
    """Return the number of values of each category field, from 3 to `large`; interacting fields come first."""
    interacting = [20] * len(_INTERACTING)
    rest = [3, 8, 15, 30, 100, 300, large // 10 + 1, large // 3 + 1, large, large, large, large]
    sizes = interacting + rest
    return sizes + [20] * (CATEGORIES - len(sizes))


def _zipf(size: int, exponent: float) -> NDArray[np.float64]:
    """Return the cumulative probabilities of ranks 0 … size − 1, where P(rank) ∝ (rank + 3)^−exponent."""
    weights = np.arange(3, size + 3) ** -exponent
    cumulative = np.cumsum(weights / weights.sum())
    cumulative[-1] = 1.0
    return cumulative


def _factors(draw: np.random.Generator, probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw a factor for each value: mean 0 and variance 1 over the 100 most frequent values, 0 for the others.

    Three in ten of the factors are large and the others similar, as in real categories.
    """
    common = min(len(probability), 100)
    place = draw.permutation((np.arange(common) + 0.5) / common)
    raw = (place > 0.7) + 0.25 * place
    shares = probability[:common] / probability[:common].sum()
    mean = shares @ raw
    factors = np.zeros(len(probability))
    factors[:common] = (raw - mean) / np.sqrt(shares @ (raw - mean) ** 2)
    return factors


def _bias_for(logit: NDArray[np.float64], rate: float) -> float:
    """Find by bisection the bias for which the mean click probability is `rate`."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if np.mean(1 / (1 + np.exp(-logit - middle))) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _frame(rows: ClickRows, tokens: list[pl.Series]) -> pl.DataFrame:
    return pl.DataFrame([pl.Series("label", rows.labels), *_integer_columns(rows), *_category_columns(rows, tokens)])


def _integer_columns(rows: ClickRows) -> Iterable[pl.Series]:
    for field in range(INTEGERS):
        column = pl.Series(f"I{field + 1}", rows.integers[:, field])
        yield column.set(pl.Series(rows.missing[:, field]), None)


def _category_columns(rows: ClickRows, tokens: list[pl.Series]) -> Iterable[pl.Series]:
    for field in range(CATEGORIES):
        column = tokens[field].gather(rows.categories[:, field]).alias(f"C{field + 1}")
        yield column.set(pl.Series(rows.missing[:, INTEGERS + field]), None)


def _tokens(field: int, size: int) -> pl.Series:
    """Return distinct 8-digit hexadecimal names for a field's values, (size,)."""
    # Multiplication by an odd number permutes the 32-bit integers, so names are distinct.
    ranks = np.arange(size, dtype=np.uint64) + np.uint64(field * 0x01000193)
    numbers = (ranks * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    digits = (numbers[:, None] >> np.arange(28, -4, -4, dtype=np.uint64)) & np.uint64(15)
    letters = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)[digits]
    return pl.Series(np.ascontiguousarray(letters).view("S8").ravel().astype(str))
