"""The stand-in's posterior against enumeration of all labellings, and its statistics against the recipe."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.families.graphs.stand_in import RECIPES, Recipe, generate, split

TINY = Recipe(
    6, 2, 3, 4, same_topic=0.7, preferential=0.5, topic_words=2, emphasis=3.0, density=0.3, train=1, valid=1, test=2
)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("known", [[], [3], [0, 5]])
def test_posterior_equals_enumeration(seed: int, known: list[int]) -> None:
    tree = generate(TINY, seed)
    expected = np.zeros((6, 3))
    for labels in itertools.product(range(3), repeat=6):
        if any(labels[node] != tree.labels[node] for node in known):
            continue
        probability = 1.0
        for node, label in enumerate(labels):
            parent = tree.parent[node]
            prior = 1 / 3 if parent < 0 else (0.7 if labels[parent] == label else 0.15)
            theta = tree.word_probability[label]
            probability *= prior * np.where(tree.words[node] == 1, theta, 1 - theta).prod()
        expected[np.arange(6), labels] += probability
    expected /= expected.sum(1, keepdims=True)
    posterior = tree.posterior(np.array(known, dtype=np.int64))
    np.testing.assert_allclose(posterior, expected, rtol=1e-9, atol=1e-12)
    assert tree.bayes_accuracy(np.array(known, dtype=np.int64), np.array([1, 2])) == pytest.approx(
        expected[1:3].max(1).mean()
    )


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_predicting_the_likeliest_topic_scores_the_bayes_accuracy(name: str) -> None:
    """The accuracy of the posterior's mode on generated labels is its expected value, within four deviations."""
    recipe = RECIPES[name]
    tree, parts = generate(recipe, 3), split(recipe, 3)
    asked = np.setdiff1d(np.arange(recipe.nodes), parts["train"])
    posterior = tree.posterior(parts["train"])[asked]
    expected = tree.bayes_accuracy(parts["train"], asked)
    accuracy = (posterior.argmax(1) == tree.labels[asked]).mean()
    best = posterior.max(1)
    # Neighbouring papers err together: allow for clusters of ten.
    assert abs(accuracy - expected) < 4 * np.sqrt(10 * (best * (1 - best)).sum()) / len(asked)
    assert 0.85 < expected < 0.96


def test_forest_and_topics_follow_the_recipe() -> None:
    recipe = replace(RECIPES["cora"], nodes=20000)
    tree = generate(recipe, 0)
    assert (tree.parent[: recipe.founders] == -1).all()
    citing = np.arange(recipe.founders, recipe.nodes)
    assert ((tree.parent[citing] >= 0) & (tree.parent[citing] < citing)).all()
    same = (tree.labels[citing] == tree.labels[tree.parent[citing]]).mean()
    assert same == pytest.approx(recipe.same_topic, abs=0.01)  # four standard deviations
    topic = 2
    np.testing.assert_allclose(tree.words[tree.labels == topic].mean(0), tree.word_probability[topic], atol=0.06)


def test_same_seed_same_graph_other_seed_another() -> None:
    first, again, other = (generate(TINY, seed) for seed in (1, 1, 2))
    assert (first.words == again.words).all() and (first.parent == again.parent).all()
    assert not (first.words == other.words).all()


def test_splits_are_disjoint_and_sized() -> None:
    recipe = RECIPES["citeseer"]
    parts = split(recipe, 0)
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [20 * recipe.classes, 200, 400]
    assert len(np.unique(np.concatenate(list(parts.values())))) == sum(map(len, parts.values()))


def test_both_directions_of_every_citation() -> None:
    tree = generate(TINY, 0)
    edges = {tuple(edge) for edge in tree.to_data().edge_index.t().tolist()}
    wanted = {(node, int(parent)) for node, parent in enumerate(tree.parent) if parent >= 0}
    assert edges == wanted | {(b, a) for a, b in wanted}
