"""The grammar of the stand-in: Zipfian words, a topic that lingers, agreement over a distance.

A sentence is a noun phrase, perhaps with a relative clause inside, a verb phrase and a full stop. With English words:

    the old lanes that a bird sees cross many fields quickly .

The main verb agrees in number with its subject across the clause. Nouns and verbs belong to a topic, which mostly stays
the same from noun to noun and from sentence to sentence.
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
    """The size of a language and how often its constructions occur.

    Attributes:
        topics: each has nouns and verbs of its own.
        nouns, verbs: stems per topic; each has a singular and a plural form.
        adjectives, adverbs, determiners: shared by all topics; determiners per number.
        linger: probability that a noun takes over the topic of the noun before it; else all topics are equally likely.
        plural, adjective, clause, object, adverb: probability of each where it can occur.

    Raises:
        ConfigError: an empty lexicon, or a probability that is not between 0 and 1.
    """

    topics: int = 12
    nouns: int = 12
    verbs: int = 6
    adjectives: int = 16
    adverbs: int = 8
    determiners: int = 3
    linger: float = 0.9
    plural: float = 0.5
    adjective: float = 0.4
    clause: float = 0.4
    object: float = 0.6
    adverb: float = 0.3

    def __post_init__(self) -> None:
        counts = (self.topics, self.nouns, self.verbs, self.adjectives, self.adverbs, self.determiners)
        chances = (self.linger, self.plural, self.adjective, self.clause, self.object, self.adverb)
        if min(counts) < 1 or not all(0 < chance < 1 for chance in chances):
            raise ConfigError(f"no language can be made of {self}")


class State(NamedTuple):
    """What the words so far tell about the next one.

    Attributes:
        slot: "determiner", "noun", "clause_or_verb", "verb", "object_or_end", "end" or "stop".
        role: of the noun phrase under way: "subject", "inner" (of the relative clause) or "object".
        topic: of the last noun.
        number: of the noun phrase under way.
        subject: number of the main subject, which the main verb will have to agree with.
    """

    slot: str
    topic: int
    role: str = "subject"
    number: int = SINGULAR
    subject: int = SINGULAR


class Emission(NamedTuple):
    """A word, its probability, and the state after it."""

    word: int
    chance: float
    after: State


class Grammar:
    """The words of a recipe, and what may follow a state; each word leads from one state to one other."""

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
        """What can come next."""
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

    def _determiner(self, state: State, chance: float) -> Iterator[Emission]:
        for number, share in zip(NUMBERS, (1 - self.recipe.plural, self.recipe.plural), strict=True):
            subject = {"subject": number, "inner": state.subject, "object": SINGULAR}[state.role]
            noun = State("noun", state.topic, state.role, number, subject)
            yield from _choose(self.determiners[number], chance * share, noun)

    def _noun(self, state: State, chance: float) -> Iterator[Emission]:
        recipe = self.recipe
        slot = {"subject": "clause_or_verb", "inner": "verb", "object": "end"}[state.role]
        for topic in range(recipe.topics):
            share = recipe.linger * (topic == state.topic) + (1 - recipe.linger) / recipe.topics
            after = State("end", topic) if slot == "end" else state._replace(slot=slot, topic=topic)
            yield from _choose(self.nouns[topic][state.number], chance * share, after)

    def _end(self, state: State, chance: float) -> Iterator[Emission]:
        yield from _choose(self.adverbs, chance * self.recipe.adverb, State("stop", state.topic))
        yield from _choose(self.stop, chance * (1 - self.recipe.adverb), State("determiner", state.topic))

    def _lexicon(self, words: list[str]) -> dict[int, float]:
        """Numbers of new words, with Zipf's frequencies 1 / rank."""
        numbers = range(len(self.words), len(self.words) + len(words))
        self.words += words
        weights = 1 / np.arange(1, len(words) + 1)
        return dict(zip(numbers, (weights / weights.sum()).tolist(), strict=True))


def _choose(lexicon: Mapping[int, float], chance: float, after: State) -> Iterator[Emission]:
    for word, share in lexicon.items():
        yield Emission(word, chance * share, after)


def _stems(prefix: str, count: int, suffix: str) -> list[str]:
    return [prefix + _stem(rank) + suffix for rank in range(count)]


def _stem(rank: int) -> str:
    """A pronounceable stem of its own for each number."""
    rest, first = divmod(rank, len(_SYLLABLES))
    return (_stem(rest - 1) if rest else "") + _SYLLABLES[first]
