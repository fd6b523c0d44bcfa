"""Models of torch itself."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.zoo.kinds import Built

ROWS, STEPS, WIDTH, CLASSES = 3, 4, 8, 5


class Sequences(nn.Module):
    """Embedding, a recurrent layer, a head on its last output."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(CLASSES, WIDTH), body, nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.body(self.embed(tokens))[0]
        return self.head(outputs)


class Translator(nn.Module):
    """Encoder and decoder that read sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(CLASSES, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.body = nn.Transformer(WIDTH, 2, 2, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.body(self.embed(source), self.embed(target)))


def _tokens(steps: int = STEPS) -> Tensor:
    return torch.randint(CLASSES, (ROWS, steps))


def _next_token(model: nn.Module) -> Built:
    tokens, targets = _tokens(), _tokens()
    return model, lambda model: cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def lstm() -> Built:
    return _next_token(Sequences(nn.LSTM(WIDTH, WIDTH, batch_first=True)))


def gru() -> Built:
    return _next_token(Sequences(nn.GRU(WIDTH, WIDTH, batch_first=True)))


def encoder() -> Built:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return _next_token(nn.Sequential(nn.Embedding(CLASSES, WIDTH), body, nn.Linear(WIDTH, CLASSES)))


def transformer() -> Built:
    source, target, wanted = _tokens(6), _tokens(), _tokens()
    return Translator(), lambda model: cross_entropy(model(source, target).flatten(0, 1), wanted.flatten())
