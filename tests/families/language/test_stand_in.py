"""The synthetic language: entropies by brute force, the optimal predictor by another algorithm, its grammar."""

import math
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.language.stand_in.corpus import generate
from benchmarks.families.language.stand_in.grammar import PLURAL, SINGULAR, Grammar, Recipe, State
from benchmarks.families.language.stand_in.markov import MarkovSource, entropy

_SMALL = Recipe(topics=2, nouns=2, verbs=1, adjectives=1, adverbs=1, determiners=1)


def _forward(grammar: Grammar, start: dict[State, float], words: list[int]) -> list[float]:
    """-log p of each word given those before it, by the forward algorithm over dictionaries of states."""
    belief, losses = start, []
    for word in words:
        after: defaultdict[State, float] = defaultdict(float)
        for state, weight in belief.items():
            for emission in grammar.emissions(state):
                if emission.word == word:
                    after[emission.after] += weight * emission.probability
        total = sum(after.values())
        losses.append(-math.log(total))
        belief = {state: weight / total for state, weight in after.items()}
    return losses


def _stationary(grammar: Grammar) -> dict[State, float]:
    """Average of the distributions over states after 1,000 to 3,000 words."""
    belief: dict[State, float] = {grammar.start: 1.0}
    emissions: dict[State, list[tuple[State, float]]] = {}
    average: defaultdict[State, float] = defaultdict(float)
    for step in range(3000):
        following: defaultdict[State, float] = defaultdict(float)
        for state, weight in belief.items():
            if state not in emissions:
                emissions[state] = [(e.after, e.probability) for e in grammar.emissions(state)]
            for after, chance in emissions[state]:
                following[after] += weight * chance
        belief = dict(following)
        if step >= 1000:
            for state, weight in belief.items():
                average[state] += weight / 2000
    return dict(average)


@pytest.fixture(scope="module")
def small() -> tuple[Grammar, MarkovSource, dict[State, float]]:
    grammar = Grammar(_SMALL)
    return grammar, MarkovSource(grammar), _stationary(grammar)


Small = tuple[Grammar, MarkovSource, dict[State, float]]


def test_every_state_emits_a_distribution_and_a_word_leads_to_one_state(small: Small) -> None:
    grammar, source, stationary = small
    assert len(source.probabilities) == len(stationary)
    for state in stationary:
        emissions = list(grammar.emissions(state))
        assert sum(emission.probability for emission in emissions) == pytest.approx(1)
        after: dict[int, State] = {}
        for emission in emissions:
            assert after.setdefault(emission.word, emission.after) == emission.after
    np.testing.assert_allclose(sorted(source.stationary), sorted(stationary.values()), atol=1e-6)
    assert len(set(grammar.words)) == len(grammar.words) == source.vocabulary


def test_entropy_rate_is_the_growth_of_the_entropy_of_ever_longer_strings(small: Small) -> None:
    """H(n words) - H(n - 1 words), over all strings of the language, falls to the entropy rate."""
    grammar, source, stationary = small
    strings: dict[tuple[int, ...], dict[State, float]] = {(): stationary}
    heights = [0.0]
    for _ in range(7):
        longer: dict[tuple[int, ...], defaultdict[State, float]] = {}
        for string, belief in strings.items():
            for state, weight in belief.items():
                for emission in grammar.emissions(state):
                    after = longer.setdefault((*string, emission.word), defaultdict(float))
                    after[emission.after] += weight * emission.probability
        strings = {string: dict(after) for string, after in longer.items()}
        chances = [sum(belief.values()) for belief in strings.values()]
        heights.append(-sum(chance * math.log(chance) for chance in chances))
    growth = [after - before for before, after in pairwise(heights)]
    assert growth[0] == pytest.approx(source.unigram_entropy, abs=1e-6)
    assert growth[1] == pytest.approx(source.bigram_entropy, abs=1e-6)
    assert growth == sorted(growth, reverse=True)
    assert 0 < growth[-1] - source.entropy_rate < 0.02


def _losses(source: MarkovSource, words: NDArray[np.integer]) -> NDArray[np.float64]:
    """−log p of each word given all words before it; the text begins with a sentence."""
    losses, state = np.empty(len(words)), 0
    for index, word in enumerate(words.tolist()):
        losses[index] = -np.log(source.probabilities[state, word])
        state = source.next_state[state, word]
    return losses


def test_the_oracle_reaches_the_entropy() -> None:
    source = MarkovSource(Grammar(Recipe()))
    losses = _losses(source, source.sample(60_000, np.random.default_rng(5)))
    means = losses.reshape(100, -1).mean(axis=1)
    error = means.std(ddof=1) / math.sqrt(len(means))  # of the mean, from nearly independent stretches
    assert abs(losses.mean() - source.entropy_rate) < 3 * error
    assert error < 0.02


def test_losses_with_all_words_and_in_windows_are_those_of_the_forward_algorithm(small: Small) -> None:
    grammar, source, stationary = small
    words = source.sample(60, np.random.default_rng(1))
    np.testing.assert_allclose(_losses(source, words), _forward(grammar, {grammar.start: 1.0}, words.tolist()))
    windows = words.reshape(5, 12)
    expected = [_forward(grammar, stationary, row)[1:] for row in windows.tolist()]
    np.testing.assert_allclose(source.window_losses(windows), expected, rtol=1e-5)


def test_a_window_can_only_be_predicted_worse_than_with_all_words() -> None:
    notes = generate("wikitext103", 40_000, 64, 0).info.notes
    best, rate, bigram, unigram = (
        float(notes[f"{name}_perplexity"]) for name in ("best", "entropy", "bigram", "unigram")
    )
    assert rate < best < 1.1 * rate
    assert best < bigram / 2 and bigram < unigram / 4  # there is much to learn beyond the word before


def test_samples_have_the_frequencies_of_the_language(small: Small) -> None:
    _, source, _ = small
    words = source.sample(40_000, np.random.default_rng(2))
    found = np.bincount(words, minlength=source.vocabulary) / len(words)
    np.testing.assert_allclose(found, source.stationary @ source.probabilities, atol=0.01)


def test_main_verbs_agree_with_their_subjects_across_clauses() -> None:
    grammar = Grammar(Recipe())
    words = MarkovSource(grammar).sample(20_000, np.random.default_rng(3)).tolist()
    number = {word: n for lexicons in (grammar.nouns, grammar.verbs) for topic in lexicons
              for n in (SINGULAR, PLURAL) for word in topic[n]}  # fmt: skip
    verbs = {word for topic in grammar.verbs for lexicon in topic for word in lexicon}
    stop, that = next(iter(grammar.stop)), next(iter(grammar.that))
    sentences: list[list[int]] = [[]]
    for word in words:
        sentences.append([]) if word == stop else sentences[-1].append(word)
    distances = []
    for sentence in sentences[:-1]:
        marked = [word for word in sentence if word in number]
        # With a clause: subject, inner subject, inner verb, main verb; without: subject, main verb.
        main = 3 if that in sentence else 1
        assert marked[main] in verbs and number[marked[main]] == number[marked[0]]
        if main == 3:
            assert number[marked[1]] == number[marked[2]]
            distances.append(sentence.index(marked[main]) - sentence.index(marked[0]))
    assert len(distances) > 500 and max(distances) >= 8
    assert {number[s[i]] for s in sentences[:50] for i in range(len(s)) if s[i] in number} == {SINGULAR, PLURAL}


def test_topics_persist() -> None:
    grammar = Grammar(Recipe())
    topic = {word: t for t, forms in enumerate(grammar.nouns) for lexicon in forms for word in lexicon}
    nouns = [topic[w] for w in MarkovSource(grammar).sample(30_000, np.random.default_rng(4)).tolist() if w in topic]
    stays = np.mean([a == b for a, b in pairwise(nouns)])
    assert stays == pytest.approx(0.9 + 0.1 / 12, abs=0.01)


def test_words_are_zipfian_within_their_kind(small: Small) -> None:
    chances = [e.probability for e in Grammar(Recipe(adjectives=4)).emissions(State("noun", 0))][:4]
    np.testing.assert_allclose(np.array(chances) / chances[0], [1, 1 / 2, 1 / 3, 1 / 4])


def test_texts_are_a_function_of_the_seed() -> None:
    first, same, other = (generate("wikitext2", 5000, 16, seed) for seed in (0, 0, 1))
    for split in ("train", "valid", "test"):
        assert (first.ids[split] == same.ids[split]).all() and (first.ids[split] != other.ids[split]).any()
    assert (first.ids["valid"] != first.ids["test"]).any()
    assert [len(first.ids[split]) for split in ("train", "valid", "test")] == [5000, 250, 250]
    assert first.info.kind == "stand-in" and first.words["valid"] == 250
    text = first.decode(first.ids["valid"][:20].tolist())
    assert first.encode(text) == first.ids["valid"][:20].tolist()


def test_impossible_languages_and_texts_are_refused() -> None:
    with pytest.raises(ConfigError, match="sizes must be at least 1 and probabilities"):
        Recipe(nouns=0)
    with pytest.raises(ConfigError, match="sizes must be at least 1 and probabilities"):
        Recipe(clause=1.0)
    with pytest.raises(DataError, match="1000 tokens is too short for windows of 64"):
        generate("wikitext2", 1000, 64, 0)
    with pytest.raises(DataError, match="has no word 'the'"):
        generate("wikitext2", 5000, 16, 0).encode("the")


def test_entropy_of_known_distributions() -> None:
    np.testing.assert_allclose(
        entropy(np.array([[0.5, 0.5, 0], [1, 0, 0], [0.25, 0.5, 0.25]])), np.array([1, 0, 1.5]) * math.log(2)
    )
