"""A source of words with a finite memory: sampling, entropy, and the best prediction anyone could make.

The states of a grammar in which each word leads from one state to one other follow from the words so far. The entropy
rate is then a sum over states, Σ π(s) H(word | s) with π the stationary distribution, and whoever knows the grammar
and all words so far reaches it. Who sees a window only has to infer the state: `window_losses` does so exactly.
"""

from bisect import bisect
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.families.language.stand_in.grammar import Grammar

Floats = NDArray[np.float64]


class Source:
    """The chain of states of a grammar.

    Attributes:
        vocabulary: number of words.
        chances: (states, words) probability of each word in each state.
        following: (states, words) the state that it leads to (0 where it cannot occur).
    """

    def __init__(self, grammar: Grammar) -> None:
        numbers = {grammar.start: 0}
        found = []
        for state in iter(queue := [grammar.start]):  # grows while it is read
            for word, chance, after in grammar.emissions(state):
                if after not in numbers:
                    numbers[after] = len(numbers)
                    queue.append(after)
                found.append((numbers[state], word, numbers[after], chance))
        self.vocabulary = len(grammar.words)
        self.chances = np.zeros((len(numbers), self.vocabulary))
        self.following = np.zeros((len(numbers), self.vocabulary), np.int64)
        for state_number, word, after_number, chance in found:
            self.chances[state_number, word] += chance
            self.following[state_number, word] = after_number

    @cached_property
    def stationary(self) -> Floats:
        """π: the share of time spent in each state."""
        states = len(self.chances)
        moves = np.zeros((states, states))
        np.add.at(moves, (np.arange(states)[:, None], self.following), self.chances)
        equations = np.vstack([moves.T - np.eye(states), np.ones(states)])
        return np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0].clip(0)

    @property
    def entropy_rate(self) -> float:
        """Nats per word of the best prediction from all words so far."""
        return float(self.stationary @ entropy(self.chances))

    @property
    def unigram_entropy(self) -> float:
        """Nats per word of the best prediction that looks at nothing: words' frequencies."""
        return float(entropy(self.stationary @ self.chances))

    @property
    def bigram_entropy(self) -> float:
        """Nats per word of the best prediction from the word before alone."""
        reached = np.zeros((self.vocabulary, len(self.stationary)))  # P(word, state after it)
        words = np.arange(self.vocabulary)[None, :]
        np.add.at(reached, (words, self.following), self.stationary[:, None] * self.chances)
        pairs = reached @ self.chances
        return float(entropy(pairs.ravel()) - entropy(pairs.sum(axis=1)))

    def sample(self, count: int, generator: np.random.Generator) -> NDArray[np.uint16]:
        """`count` words from the start of a sentence on."""
        cumulative = [row.cumsum().tolist() for row in self.chances]
        following = self.following.tolist()
        last = [int(np.flatnonzero(row)[-1]) for row in self.chances]
        words = np.empty(count, np.uint16)
        state = 0
        for index, draw in enumerate(generator.random(count).tolist()):
            # The cumulative sum may end a rounding error below one.
            word = min(bisect(cumulative[state], draw), last[state])
            words[index] = word
            state = following[state][word]
        return words

    def losses(self, words: NDArray[np.integer]) -> Floats:
        """-log p of each word given all before it, from the start of a sentence on: the oracle."""
        losses = np.empty(len(words))
        state = 0
        for index, word in enumerate(words.tolist()):
            losses[index] = -np.log(self.chances[state, word])
            state = self.following[state, word]
        return losses

    def window_losses(self, windows: NDArray[np.integer]) -> Floats:
        """-log p of each word but the first of each window given those before it in the window.

        Args:
            windows: (windows, length) of words.

        Returns:
            (windows, length - 1), by the forward algorithm: what is believed of the state starts as its stationary
            distribution and is narrowed down by every word.
        """
        rows, length = windows.shape
        belief = np.broadcast_to(self.stationary, (rows, len(self.stationary)))
        losses = np.empty((rows, length))
        for position in range(length):
            word = windows[:, position]
            joint = belief * self.chances[:, word].T
            likelihood = joint.sum(axis=1)
            losses[:, position] = -np.log(likelihood)
            belief = np.zeros_like(joint)
            np.add.at(belief, (np.arange(rows)[:, None], self.following[:, word].T), joint / likelihood[:, None])
        return losses[:, 1:]


def entropy(distributions: Floats) -> Floats:
    """Entropy in nats along the last dimension."""
    logs = np.log(distributions, where=distributions > 0, out=np.zeros_like(distributions))
    return -(distributions * logs).sum(axis=-1)
