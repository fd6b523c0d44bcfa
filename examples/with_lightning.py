"""Lightning: `LightningModule.backward` is the place, under automatic and under manual optimisation."""

from typing import Any

import lightning
import torch
from digits import POINTS, accuracy, digits, make_network, make_optimizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import dfa


class Digits(lightning.LightningModule):
    """A network, trained by a rule."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.network = make_network()
        self.automatic_optimization = not manual

    def on_fit_start(self) -> None:  # the model is where it will be trained; processes that it is copied to are there
        self.rule = dfa.DirectFeedbackAlignment(self.network, POINTS)

    def on_fit_end(self) -> None:
        self.rule.close()

    def backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:  # `manual_backward` comes here, too
        self.rule.backward(loss)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor | None:
        loss = cross_entropy(self.network(batch[0]), batch[1])
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rule"] = self.rule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.rule.load_state_dict(checkpoint["rule"])


def train(manual: bool = False, epochs: int = 30) -> nn.Module:
    """Train with one batch an epoch."""
    module = Digits(manual)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(*digits()), batch_size=1797))
    return module.network


if __name__ == "__main__":
    pictures, classes = digits()
    for manual in (False, True):
        print(f"accuracy {accuracy(train(manual)(pictures), classes):.3f}")
