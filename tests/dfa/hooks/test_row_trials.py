"""Rows of a point in other places than the error's: refused where they belong to them one to one, and only there."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa

RULES = ["dfa", "identity", "drtp", "dkp", "low_rank", "highway", "fdfa", "grape"]
ROWS = 12


class Model(nn.Module):
    """A trunk, which is the feedback point, what comes between, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.trunk(x)))

    def between(self, hidden: Tensor) -> Tensor:
        return hidden


class Sorted(Model):
    """Sequences sorted by length."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = 1 + 7 * torch.arange(len(x)) % 5
        order = lengths.argsort(descending=True)
        hidden = self.rnn(self.trunk(x[order, None].expand(-1, 5, -1)))[0]
        return self.head(hidden[torch.arange(len(x)), lengths[order] - 1][order.argsort()])


class Shuffled(Model):
    """Samples of (batch, time, …) shuffled, with recurrence over time above."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        order = torch.arange(len(x)).roll(1)
        return self.head(self.rnn(self.trunk(x[order, None].expand(-1, 7, -1)))[0][order.argsort()])


class Swapped(Model):
    """Neighbours in each other's place, but for the last of an odd number."""

    def between(self, hidden: Tensor) -> Tensor:
        rows = torch.arange(len(hidden))
        return hidden[torch.where(rows == len(rows) - len(rows) % 2, rows, rows ^ 1)]


class Spiking(Model):
    """(time, batch, channels, height, width) inside, (batch, classes) outside."""

    times = ROWS

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Unflatten(-1, (2, 2, 2)), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x.expand(self.times, -1, -1)).flatten(2)).mean(0)


class LongSpiking(Spiking):
    times = 3 * ROWS


class Graph(Model):
    """The sum over the neighbours of each node, without the node itself."""

    def between(self, hidden: Tensor) -> Tensor:
        count = len(hidden)
        apart = (torch.arange(count)[:, None] - torch.arange(count)).abs()
        return ((apart == 1) | (apart == 5)).to(hidden) @ hidden


class Tree(Model):
    """Each node takes from its parent."""

    def between(self, hidden: Tensor) -> Tensor:
        return hidden[torch.arange(len(hidden)).sub(1).clamp(min=0) // 2]


class Greatest(Graph):
    """The greatest of one feature of the neighbours: each row depends on one row, and several on the same."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 1)

    def between(self, hidden: Tensor) -> Tensor:
        messages = self.one(hidden).squeeze(1)
        rows = torch.arange(len(hidden))
        around = torch.stack([messages[(rows + step) % len(hidden)] for step in (-4, -2, -1, 1, 2, 4)])
        return around.amax(0)[:, None].expand(-1, 8)


class Normalised(Model):
    """Batch normalisation of rows in another order: it lets every row depend on all."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def between(self, hidden: Tensor) -> Tensor:
        return self.norm(hidden)


class Attending(Model):
    """Attention among the rows."""

    def between(self, hidden: Tensor) -> Tensor:
        return (hidden @ hidden.T).softmax(1) @ hidden


class Contrasting(Model):
    """Similarities of each row to those before it; its own counts for nothing."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.trunk(x)
        return (self.head(hidden) @ self.head(hidden.flip(0)).T).tril(-1)


class Mixed(Model):
    def between(self, hidden: Tensor) -> Tensor:
        return 0.7 * hidden + 0.3 * hidden.flip(0)


class Dropping(Model):
    """Rows of which most are dropped."""

    def between(self, hidden: Tensor) -> Tensor:
        kept = torch.rand(len(hidden), 1, generator=torch.Generator().manual_seed(1)) < 0.3
        return nn.functional.dropout(hidden, 0.5) * kept


class Images(Model):
    """As many channels as images."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, ROWS, 1), nn.Tanh(), nn.BatchNorm2d(ROWS))
        self.norm, self.head = nn.BatchNorm2d(ROWS), nn.Linear(ROWS, 3)

    def between(self, hidden: Tensor) -> Tensor:
        return self.norm(hidden).mean((2, 3))


class Infinite(Model):
    """Numbers that are not finite."""

    def between(self, hidden: Tensor) -> Tensor:
        return hidden * torch.where(torch.arange(len(hidden)) == 3, torch.inf, 1)[:, None]


OTHERWISE = [Sorted, Shuffled, Swapped, Spiking, LongSpiking]
RIGHT = [Model, Graph, Tree, Greatest, Normalised, Attending, Contrasting, Mixed, Dropping, Images, Infinite]


def loss_of(output: Tensor) -> Tensor:
    rows = output.flatten(0, -2)
    return cross_entropy(rows, torch.arange(len(rows)) % rows.shape[1])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", OTHERWISE)
def test_rows_in_other_places_are_refused(kind: Callable[[], nn.Module], name: str) -> None:
    torch.manual_seed(0)
    model, x = kind(), torch.randn(ROWS, 4)
    rule = dfa.RULES.build(name, model, "trunk")
    rule.backward(loss_of(model(x)))
    with pytest.raises(dfa.FeedbackError, match=r"point 'trunk' .* rows are not in the error's order: row \d+ of the"):
        model(x)


@pytest.mark.parametrize("rows", [2, 3, 5, 9, 64])
def test_batches_of_any_size(rows: int) -> None:
    """Also where two rows alone are exchanged."""
    torch.manual_seed(0)
    model, x = Swapped() if rows < 5 else Shuffled(), torch.randn(rows, 4)
    rule = dfa.DirectFeedbackAlignment(model, "trunk")
    rule.backward(loss_of(model(x)))
    with pytest.raises(dfa.FeedbackError, match="its rows are not in the error's order"):
        model(x)


@pytest.mark.parametrize("name", ["dfa", "identity", "highway", "fdfa"])
@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("rows", [3, ROWS])
def test_rows_that_mix_go_on(kind: Callable[[], nn.Module], name: str, rows: int) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        model = kind()
        with dfa.RULES.build(name, model, "trunk") as rule:
            for _ in range(3):
                rule.backward(loss_of(model(torch.randn(rows, 4))))
