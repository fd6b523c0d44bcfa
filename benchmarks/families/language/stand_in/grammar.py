"""Grammar of the stand-in: Zipfian word frequencies, persistent topics, long-distance agreement.

A sentence is a noun phrase, optionally with a relative clause, a verb phrase and a full stop. With English words:

    the old lanes that a bird sees cross many fields quickly .

The main verb agrees in number with its subject across the clause. Nouns and verbs belong to a topic, which usually
persists from noun to noun and from sentence to sentence.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.errors import ConfigError

NUMBERS = (SINGULAR, PLURAL) = (0, 1)
_SYLLABLES = [consonant + vowel for vowel in "aeiou" for consonant in "bdfgklmnprstvz"]


@dataclass(frozen=True)
class Recipe:
    """Sizes of the lexicon and probabilities of the constructions.

    Attributes:
        topics: number of topics.
        nouns, verbs: stems per topic; each has a singular and a plural form.
        adjectives, adverbs, determiners: words shared by all topics; determiners for each number (singular, plural).
        same_topic: probability that a noun keeps the topic of the noun before it; else all topics are equally likely.
        plural, adjective, clause, object, adverb: probability of each where it can occur.

    Raises:
        ConfigError: a size is below 1, or a probability is not strictly between 0 and 1.
    """

    topics: int = 12
    nouns: int = 12
    verbs: int = 6
    adjectives: int = 16
    adverbs: int = 8
    determiners: int = 3
    same_topic: float = 0.9
    plural: float = 0.5
    adjective: float = 0.4
    clause: float = 0.4
    object: float = 0.6
    adverb: float = 0.3

    def __post_init__(self) -> None:
        counts = (self.topics, self.nouns, self.verbs, self.adjectives, self.adverbs, self.determiners)
        probabilities = (self.same_topic, self.plural, self.adjective, self.clause, self.object, self.adverb)
        if min(counts) < 1 or not all(0 < probability < 1 for probability in probabilities):
            raise ConfigError(f"sizes must be at least 1 and probabilities between 0 and 1 in {self}")


class State(NamedTuple):
    """State of the grammar, which determines the distribution of the next word.

    Attributes:
        slot: what comes next: "determiner", "noun", "clause_or_verb", "verb", "object_or_end", "end" or "stop".
        topic: topic of the last noun.
        role: role of the current noun phrase: "subject", "inner" (of the relative clause) or "object".
        number: number (singular, plural) of the current noun phrase.
        subject: number of the main subject, with which the main verb agrees.
    """

    slot: str
    topic: int
    role: str = "subject"
    number: int = SINGULAR
    subject: int = SINGULAR


class Emission(NamedTuple):
    """Transition of the grammar.

    Attributes:
        word: index of the word.
        probability: its probability.
        after: state after it.
    """

    word: int
    probability: float
    after: State


class Grammar:
    """Lexicon and transitions of a recipe; state and word determine the next state.

    Attributes:
        words: the lexicon; a word's index is its token id.
        start: state at the beginning of a text.
    """

    start = State("determiner", topic=0)

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.words: list[str] = []
        self.that, self.stop = self._lexicon(["that"]), self._lexicon(["."])
        self.determiners = [self._lexicon(_stems("th", recipe.determiners, "ix"[number])) for number in NUMBERS]
        self.adjectives = self._lexicon(_stems("", recipe.adjectives, "ish"))
        self.adverbs = self._lexicon(_stems("", recipe.adverbs, "ly"))
        topics = range(recipe.topics)
        self.nouns = [[self._lexicon(_stems(_stem(t), recipe.nouns, ("", "s")[n])) for n in NUMBERS] for t in topics]
        self.verbs = [[self._lexicon(_stems(_stem(t), recipe.verbs, ("et", "en")[n])) for n in NUMBERS] for t in topics]

    def emissions(self, state: State) -> Iterator[Emission]:
        """Yield the transitions from a state; their probabilities sum to 1."""
        recipe, then = self.recipe, partial(State, topic=state.topic)
        if state.slot == "determiner":
            yield from self._determiner(state, 1.0)
        elif state.slot == "noun":
            yield from _choose(self.adjectives, recipe.adjective, state)
            yield from self._noun(state, 1 - recipe.adjective)
        elif state.slot == "clause_or_verb":
            inner = then("determiner", role="inner", subject=state.subject)
            yield from _choose(self.that, recipe.clause, inner)
            yield from _choose(self.verbs[state.topic][state.number], 1 - recipe.clause, then("object_or_end"))
        elif state.slot == "verb" and state.role == "inner":
            main = then("verb", number=state.subject)
            yield from _choose(self.verbs[state.topic][state.number], 1.0, main)
        elif state.slot == "verb":
            yield from _choose(self.verbs[state.topic][state.number], 1.0, then("object_or_end"))
        elif state.slot == "object_or_end":
            yield from self._determiner(state._replace(role="object"), recipe.object)
            yield from self._end(state, 1 - recipe.object)
        elif state.slot == "end":
            yield from self._end(state, 1.0)
        else:
            yield from _choose(self.stop, 1.0, then("determiner"))

    def _determiner(self, state: State, probability: float) -> Iterator[Emission]:
        for number, share in zip(NUMBERS, (1 - self.recipe.plural, self.recipe.plural), strict=True):
            subject = {"subject": number, "inner": state.subject, "object": SINGULAR}[state.role]
            noun = State("noun", state.topic, state.role, number, subject)
            yield from _choose(self.determiners[number], probability * share, noun)

    def _noun(self, state: State, probability: float) -> Iterator[Emission]:
        recipe = self.recipe
        slot = {"subject": "clause_or_verb", "inner": "verb", "object": "end"}[state.role]
        for topic in range(recipe.topics):
            share = recipe.same_topic * (topic == state.topic) + (1 - recipe.same_topic) / recipe.topics
            after = State("end", topic) if slot == "end" else state._replace(slot=slot, topic=topic)
            yield from _choose(self.nouns[topic][state.number], probability * share, after)

    def _end(self, state: State, probability: float) -> Iterator[Emission]:
        yield from _choose(self.adverbs, probability * self.recipe.adverb, State("stop", state.topic))
        yield from _choose(self.stop, probability * (1 - self.recipe.adverb), State("determiner", state.topic))

    def _lexicon(self, words: list[str]) -> dict[int, float]:
        """Add words to the lexicon; return index → frequency, proportional to 1 / rank (Zipf)."""
        numbers = range(len(self.words), len(self.words) + len(words))
        self.words += words
        weights = 1 / np.arange(1, len(words) + 1)
        return dict(zip(numbers, (weights / weights.sum()).tolist(), strict=True))


def _choose(lexicon: Mapping[int, float], probability: float, after: State) -> Iterator[Emission]:
    for word, share in lexicon.items():
        yield Emission(word, probability * share, after)


def _stems(prefix: str, count: int, suffix: str) -> list[str]:
    return [prefix + _stem(rank) + suffix for rank in range(count)]


def _stem(rank: int) -> str:
    """Return a distinct pronounceable stem for each rank."""
    rest, first = divmod(rank, len(_SYLLABLES))
    return (_stem(rest - 1) if rest else "") + _SYLLABLES[first]
