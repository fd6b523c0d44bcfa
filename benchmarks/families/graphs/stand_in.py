"""Stand-in: generated citation graphs whose Bayes accuracy is known exactly.

The first papers (roots) cite none; every later paper cites one earlier paper, so the graph is a forest of random
recursive trees. Citations do not depend on topics. The topic (class) of a root is uniform; a later paper has the topic
of the paper that it cites with probability `same_topic`, otherwise one of the others, uniformly. Words occur
independently given the topic.

On a forest, sum-product message passing gives the exact posterior of every paper's topic given all words, all citations
and the topics of the training papers. Its maximum, averaged over the test papers, is the expected accuracy of the best
possible classifier, the Bayes accuracy. It is exact for splits that are independent of the topics, as those of `split`.

For link prediction the best score is unknown, because links also depend on the unobserved order of papers. Known is the
AUC of a scorer that uses all topics and nothing else (`topic_auc`).
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
    """Parameters of a stand-in citation graph.

    Attributes:
        nodes, founders, classes, words: numbers of papers, of papers without citation among them, of topics, of words.
        same_topic: probability that a paper has the topic of the paper that it cites.
        preferential: share of citations drawn in proportion to degree; the others are drawn uniformly.
        topic_words: number of typical words of each topic.
        emphasis: odds ratio of a typical word in its topic against other topics.
        density: mean probability that a word occurs in a paper.
        train, valid, test: papers of each split; `train` is the average number per class.
    """

    nodes: int
    founders: int
    classes: int
    words: int
    same_topic: float
    preferential: float
    topic_words: int
    emphasis: float
    density: float
    train: int = 20
    valid: int = 200
    test: int = 400


RECIPES = {
    "cora": Recipe(1500, 60, 7, 150, same_topic=0.85, preferential=0.2, topic_words=20, emphasis=5.5, density=0.05),
    "citeseer": Recipe(1600, 60, 6, 130, same_topic=0.87, preferential=0.2, topic_words=20, emphasis=5.0, density=0.05),
    "pubmed": Recipe(1800, 60, 5, 100, same_topic=0.88, preferential=0.2, topic_words=16, emphasis=5.0, density=0.05),
}


@dataclass(frozen=True)
class CitationTree:
    """Synthetic citation graph with the parameters of its distribution.

    Attributes:
        parent: index of the cited paper, smaller than the paper's own, or -1 for roots, (nodes,).
        labels: topics, (nodes,).
        words: 1 where a word occurs, else 0, (nodes, words).
        word_probability: probability of every word given the topic, (classes, words).
        same_topic: see `Recipe`.
    """

    parent: Indices
    labels: Indices
    words: NDArray[np.float32]
    word_probability: Array
    same_topic: float

    @property
    def classes(self) -> int:
        """Number of topics."""
        return int(self.word_probability.shape[0])

    def transition(self) -> Array:
        """Return P(topic of a paper | topic of the cited paper), (classes, classes); rows are cited topics."""
        others = (1.0 - self.same_topic) / (self.classes - 1)
        return np.where(np.eye(self.classes, dtype=bool), self.same_topic, others)

    def posterior(self, known: Indices) -> Array:
        """Return the exact P(topic | all words, all citations, topics of the papers `known`), (nodes, classes)."""
        log_p, log_absent = np.log(self.word_probability), np.log1p(-self.word_probability)
        evidence = self.words @ (log_p - log_absent).T + log_absent.sum(axis=1)
        clamp = np.full((len(known), self.classes), -np.inf)
        clamp[np.arange(len(known)), self.labels[known]] = 0.0
        evidence[known] += clamp
        return _sum_product(self.parent, evidence, np.log(self.transition()))

    def bayes_accuracy(self, known: Indices, asked: Indices) -> float:
        """Return the expected accuracy of the best classifier on papers `asked`, given the topics of papers `known`."""
        return float(self.posterior(known)[asked].max(axis=1).mean())

    def topic_auc(self) -> float:
        """Return the expected AUC for links of a scorer that only knows whether two papers share their topic.

        Assumes that all topics are equally frequent among unlinked pairs.
        """
        linked, unlinked = self.same_topic, 1.0 / self.classes
        return linked * (1 - unlinked) + 0.5 * (linked * unlinked + (1 - linked) * (1 - unlinked))

    def to_data(self) -> Data:
        """Return the graph as PyG's `Data`, with both directions of every citation."""
        citing = np.flatnonzero(self.parent >= 0)
        one_way = np.stack([citing, self.parent[citing]])
        edges = np.concatenate([one_way, one_way[::-1]], axis=1)
        edges = edges[:, np.lexsort((edges[0], edges[1]))]
        return Data(x=torch.from_numpy(self.words), edge_index=torch.from_numpy(edges), y=torch.from_numpy(self.labels))


def generate(recipe: Recipe, seed: int) -> CitationTree:
    """Draw a graph, a function of recipe and seed."""
    random = np.random.default_rng(seed)
    parent = _citations(recipe, random)
    labels = random.integers(recipe.classes, size=recipe.nodes)
    shift = random.integers(1, recipe.classes, size=recipe.nodes)
    moves = random.random(recipe.nodes) >= recipe.same_topic
    for node in range(recipe.founders, recipe.nodes):
        labels[node] = (labels[parent[node]] + moves[node] * shift[node]) % recipe.classes
    probability = _word_probability(recipe, random)
    words = (random.random((recipe.nodes, recipe.words)) < probability[labels]).astype(np.float32)
    return CitationTree(parent, labels, words, probability, recipe.same_topic)


def split(recipe: Recipe, seed: int) -> dict[str, Indices]:
    """Return the sorted node indices of "train", "valid" and "test", disjoint and independent of the topics.

    With a fixed number of training papers of each topic, the split would carry information about the other papers'
    topics, and the Bayes accuracy would not be exact.
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
            # A uniform choice among both ends of all earlier citations is proportional to degree.
            end = int(draw[node] * 2 * earlier)
            citing = recipe.founders + end // 2
            parent[node] = citing if end % 2 else parent[citing]
        else:
            parent[node] = int(draw[node] * node)
    return parent


def _word_probability(recipe: Recipe, random: np.random.Generator) -> Array:
    """Return P(word | topic), (classes, words): frequencies 1 / rank, with higher odds of each topic's own words."""
    frequency = 1.0 / np.arange(10, recipe.words + 10)
    odds = random.permutation(frequency / frequency.mean() * recipe.density)
    per_class = np.tile(odds, (recipe.classes, 1))
    for topic in range(recipe.classes):
        own = random.choice(recipe.words, size=recipe.topic_words, replace=False)
        per_class[topic, own] *= recipe.emphasis
    return per_class / (1.0 + per_class)


def _sum_product(parent: Indices, evidence: Array, log_transition: Array) -> Array:
    """Compute the marginals of a forest model with uniform priors by sum-product message passing in log space.

    Args:
        parent: (nodes,), -1 for roots; a parent's index is smaller than its children's.
        evidence: log-likelihood of each topic, (nodes, classes).
        log_transition: (classes, classes), rows are the parent's topic.

    Returns:
        (nodes, classes), rows sum to 1.
    """
    later = np.flatnonzero(parent >= 0)
    belief = evidence.copy()  # evidence plus the messages of all children, later of the parent too
    to_parent = np.zeros_like(evidence)
    for node in later[::-1]:
        to_parent[node] = np.logaddexp.reduce(log_transition + belief[node], axis=1)
        belief[parent[node]] += to_parent[node]
    for node in later:
        without_own = belief[parent[node]] - to_parent[node]
        belief[node] += np.logaddexp.reduce(log_transition + without_own[:, None], axis=0)
    belief -= np.logaddexp.reduce(belief, axis=1)[:, None]
    return np.exp(belief)
