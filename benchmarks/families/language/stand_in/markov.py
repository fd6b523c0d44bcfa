"""Markov source of words: sampling, entropy rate, and the losses of optimal predictors.

In a grammar where state and word determine the next state, the words so far determine the state. The entropy rate is
then Σ π(s) H(word | s) with π the stationary distribution, which is the loss of an optimal predictor that has all words
so far. A predictor that has the words of a window only must infer the state; `window_losses` does so exactly.
"""

from bisect import bisect
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.families.language.stand_in.grammar import Grammar

Floats = NDArray[np.float64]


class MarkovSource:
    """Markov chain over the states of a grammar.

    Attributes:
        vocabulary: number of words.
        probabilities: probability of each word in each state, (states, words).
        next_state: state after each word in each state, (states, words); 0 for words of probability 0.
    """

    def __init__(self, grammar: Grammar) -> None:
        numbers = {grammar.start: 0}
        found = []
        for state in iter(queue := [grammar.start]):  # breadth-first: the queue grows while it is read
            for word, probability, after in grammar.emissions(state):
                if after not in numbers:
                    numbers[after] = len(numbers)
                    queue.append(after)
                found.append((numbers[state], word, numbers[after], probability))
        self.vocabulary = len(grammar.words)
        self.probabilities = np.zeros((len(numbers), self.vocabulary))
        self.next_state = np.zeros((len(numbers), self.vocabulary), np.int64)
        for state_number, word, after_number, probability in found:
            self.probabilities[state_number, word] += probability
            self.next_state[state_number, word] = after_number

    @cached_property
    def stationary(self) -> Floats:
        """Stationary distribution π, (states,)."""
        states = len(self.probabilities)
        transitions = np.zeros((states, states))
        np.add.at(transitions, (np.arange(states)[:, None], self.next_state), self.probabilities)
        equations = np.vstack([transitions.T - np.eye(states), np.ones(states)])
        return np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0].clip(0)

    @property
    def entropy_rate(self) -> float:
        """Entropy rate in nats per word, the loss of the optimal predictor from all words so far."""
        return float(self.stationary @ entropy(self.probabilities))

    @property
    def unigram_entropy(self) -> float:
        """Loss in nats per word of the optimal predictor without context."""
        return float(entropy(self.stationary @ self.probabilities))

    @property
    def bigram_entropy(self) -> float:
        """Loss in nats per word of the optimal predictor from the word before."""
        reached = np.zeros((self.vocabulary, len(self.stationary)))  # P(word, state after it)
        words = np.arange(self.vocabulary)[None, :]
        np.add.at(reached, (words, self.next_state), self.stationary[:, None] * self.probabilities)
        pairs = reached @ self.probabilities
        return float(entropy(pairs.ravel()) - entropy(pairs.sum(axis=1)))

    def sample(self, count: int, generator: np.random.Generator) -> NDArray[np.uint16]:
        """Draw `count` words, beginning with a sentence."""
        cumulative = [row.cumsum().tolist() for row in self.probabilities]
        next_state = self.next_state.tolist()
        last = [int(np.flatnonzero(row)[-1]) for row in self.probabilities]
        words = np.empty(count, np.uint16)
        state = 0
        for index, draw in enumerate(generator.random(count).tolist()):
            # Rounding may leave the last cumulative sum below 1.
            word = min(bisect(cumulative[state], draw), last[state])
            words[index] = word
            state = next_state[state][word]
        return words

    def window_losses(self, windows: NDArray[np.integer]) -> Floats:
        """Return −log p of each word but the first of each window given the words before it in the window.

        Computed by the forward algorithm, starting from the stationary distribution of the state.

        Args:
            windows: words, (windows, length).

        Returns:
            Losses in nats, (windows, length - 1).
        """
        rows, length = windows.shape
        belief = np.broadcast_to(self.stationary, (rows, len(self.stationary)))
        losses = np.empty((rows, length))
        for position in range(length):
            word = windows[:, position]
            joint = belief * self.probabilities[:, word].T
            likelihood = joint.sum(axis=1)
            losses[:, position] = -np.log(likelihood)
            belief = np.zeros_like(joint)
            np.add.at(belief, (np.arange(rows)[:, None], self.next_state[:, word].T), joint / likelihood[:, None])
        return losses[:, 1:]


def entropy(distributions: Floats) -> Floats:
    """Return the entropy in nats of distributions along the last dimension."""
    logs = np.log(distributions, where=distributions > 0, out=np.zeros_like(distributions))
    return -(distributions * logs).sum(axis=-1)
