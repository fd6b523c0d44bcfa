"""Generated citation graphs whose best achievable accuracy is known exactly.

A few founding papers cite nobody; every later paper cites one earlier paper, so the graph is a forest of random
recursive trees. Whom a paper cites does not depend on topics. Founding papers have any topic (class) with equal
probability; a later one has the topic of the paper that it cites with probability `stay`, else one of the others,
uniformly. Words occur independently given the topic.

On a forest, sum-product message passing gives the exact posterior of every paper's topic given all words, all citations
and the topics of the training papers. Its maximum, averaged over the test papers, is the expected accuracy of the best
possible classifier: the Bayes accuracy. It is exact for splits drawn without regard to topics, as `split` draws them.

For link prediction no such ceiling is known, as pairs are linked by arrival times too, which nobody observes. Known is
the AUC of a scorer that sees all topics and nothing else (`topic_auc`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How a stand-in is generated.

    Attributes:
        nodes, founders, classes, words: sizes; the `founders` are counted among the `nodes`.
        stay: probability that a paper has the topic of the one that it cites.
        preferential: share of citations that go to papers in proportion to their degree; the others go anywhere.
        topic_words: words that are typical of each topic.
        emphasis: factor by which a typical word is more frequent (in odds).
        density: mean probability of a word to occur in a paper.
        train, valid, test: papers of each split; `train` is per class on average.
    """

    nodes: int
    founders: int
    classes: int
    words: int
    stay: float
    preferential: float
    topic_words: int
    emphasis: float
    density: float
    train: int = 20
    valid: int = 200
    test: int = 400


RECIPES = {
    "cora": Recipe(1500, 60, 7, 150, stay=0.85, preferential=0.2, topic_words=20, emphasis=5.5, density=0.05),
    "citeseer": Recipe(1600, 60, 6, 130, stay=0.87, preferential=0.2, topic_words=20, emphasis=5.0, density=0.05),
    "pubmed": Recipe(1800, 60, 5, 100, stay=0.88, preferential=0.2, topic_words=16, emphasis=5.0, density=0.05),
}


@dataclass(frozen=True)
class CitationTree:
    """A generated graph with the model that generated it.

    Attributes:
        parent: the cited paper, always an earlier one, or -1 for founding papers, (nodes,).
        labels: topics, (nodes,).
        words: which words occur, 0 or 1, (nodes, words).
        word_probability: probability of every word given the topic, (classes, words).
        stay: see `Recipe`.
    """

    parent: Indices
    labels: Indices
    words: NDArray[np.float32]
    word_probability: Array
    stay: float

    @property
    def classes(self) -> int:
        return int(self.word_probability.shape[0])

    def transition(self) -> Array:
        """Probability of a topic (column) given that of the cited paper (row), (classes, classes)."""
        others = (1.0 - self.stay) / (self.classes - 1)
        return np.where(np.eye(self.classes, dtype=bool), self.stay, others)

    def posterior(self, known: Indices) -> Array:
        """Exact P(topic | all words, all citations, the topics of the papers `known`), (nodes, classes)."""
        log_p, log_absent = np.log(self.word_probability), np.log1p(-self.word_probability)
        evidence = self.words @ (log_p - log_absent).T + log_absent.sum(axis=1)
        clamp = np.full((len(known), self.classes), -np.inf)
        clamp[np.arange(len(known)), self.labels[known]] = 0.0
        evidence[known] += clamp
        return _sum_product(self.parent, evidence, np.log(self.transition()))

    def bayes_accuracy(self, known: Indices, asked: Indices) -> float:
        """Expected accuracy on the papers `asked` of the best classifier, given the topics of the papers `known`."""
        return float(self.posterior(known)[asked].max(axis=1).mean())

    def topic_auc(self) -> float:
        """Expected AUC for links of a scorer that sees only whether two papers share their topic.

        All topics are taken to be equally frequent among the pairs that are not linked.
        """
        linked, unlinked = self.stay, 1.0 / self.classes
        return linked * (1 - unlinked) + 0.5 * (linked * unlinked + (1 - linked) * (1 - unlinked))

    def to_data(self) -> Data:
        """The graph with both directions of every citation, as PyG's `Data`."""
        citing = np.flatnonzero(self.parent >= 0)
        one_way = np.stack([citing, self.parent[citing]])
        edges = np.concatenate([one_way, one_way[::-1]], axis=1)
        edges = edges[:, np.lexsort((edges[0], edges[1]))]
        return Data(x=torch.from_numpy(self.words), edge_index=torch.from_numpy(edges), y=torch.from_numpy(self.labels))


def generate(recipe: Recipe, seed: int) -> CitationTree:
    """Draw a graph; the same recipe and seed give the same one."""
    random = np.random.default_rng(seed)
    parent = _citations(recipe, random)
    labels = random.integers(recipe.classes, size=recipe.nodes)
    shift = random.integers(1, recipe.classes, size=recipe.nodes)
    moves = random.random(recipe.nodes) >= recipe.stay
    for node in range(recipe.founders, recipe.nodes):
        labels[node] = (labels[parent[node]] + moves[node] * shift[node]) % recipe.classes
    probability = _word_probability(recipe, random)
    words = (random.random((recipe.nodes, recipe.words)) < probability[labels]).astype(np.float32)
    return CitationTree(parent, labels, words, probability, recipe.stay)


def split(recipe: Recipe, seed: int) -> dict[str, Indices]:
    """Disjoint "train", "valid" and "test" papers, drawn without regard to topics.

    Taking exactly as many training papers of each topic would tell something of the other papers' topics, and the Bayes
    accuracy would no longer be exact.
    """
    order = np.random.default_rng([seed, 1]).permutation(recipe.nodes)
    ends = np.cumsum([recipe.train * recipe.classes, recipe.valid, recipe.test])
    train, valid, test = np.split(order[: ends[-1]], ends[:-1])
    return {"train": np.sort(train), "valid": np.sort(valid), "test": np.sort(test)}


def _citations(recipe: Recipe, random: np.random.Generator) -> Indices:
    parent = np.full(recipe.nodes, -1, dtype=np.int64)
    by_degree = random.random(recipe.nodes) < recipe.preferential
    draw = random.random(recipe.nodes)
    for node in range(recipe.founders, recipe.nodes):
        earlier = node - recipe.founders
        if by_degree[node] and earlier:
            # Both ends of the earlier citations, each end as likely: a paper in proportion to its degree.
            end = int(draw[node] * 2 * earlier)
            citing = recipe.founders + end // 2
            parent[node] = citing if end % 2 else parent[citing]
        else:
            parent[node] = int(draw[node] * node)
    return parent


def _word_probability(recipe: Recipe, random: np.random.Generator) -> Array:
    """Word frequencies fall off as 1 / rank; each topic raises the odds of its own words."""
    frequency = 1.0 / np.arange(10, recipe.words + 10)
    odds = random.permutation(frequency / frequency.mean() * recipe.density)
    per_class = np.tile(odds, (recipe.classes, 1))
    for topic in range(recipe.classes):
        own = random.choice(recipe.words, size=recipe.topic_words, replace=False)
        per_class[topic, own] *= recipe.emphasis
    return per_class / (1.0 + per_class)


def _sum_product(parent: Indices, evidence: Array, log_transition: Array) -> Array:
    """Marginals of a forest model with uniform priors, in log space; parents come before their children."""
    later = np.flatnonzero(parent >= 0)
    belief = evidence.copy()  # evidence plus the messages of all children
    to_parent = np.zeros_like(evidence)
    for node in later[::-1]:
        to_parent[node] = np.logaddexp.reduce(log_transition + belief[node], axis=1)
        belief[parent[node]] += to_parent[node]
    for node in later:
        without_own = belief[parent[node]] - to_parent[node]
        belief[node] += np.logaddexp.reduce(log_transition + without_own[:, None], axis=0)
    belief -= np.logaddexp.reduce(belief, axis=1)[:, None]
    return np.exp(belief)
