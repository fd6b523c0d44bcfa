"""Hugging Face's Trainer: it calls `accelerator.backward`, which is given the rule's instead."""

import tempfile

import torch
from digits import accuracy, digits
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import dfa

POINTS, ERROR_AT = (
    ["vit.layers.*"],
    "classifier",
)  # the model returns an object: the error is taken at a module's output


def make_model() -> nn.Module:
    """A vision Transformer for pictures of 8 × 8."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=4, num_channels=1, num_labels=10, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=128,
    )  # fmt: skip
    return ViTForImageClassification(config)


def use_rule(trainer: Trainer, rule: dfa.Rule) -> None:
    """Let the trainer's gradients be the rule's."""
    accelerator = trainer.accelerator

    def backward(loss: Tensor) -> None:
        loss = loss / accelerator.gradient_accumulation_steps
        rule.backward(loss if accelerator.scaler is None else accelerator.scaler.scale(loss))

    accelerator.backward = backward


def train(steps: int = 150) -> nn.Module:
    """Train with batches of 64, in order."""
    model = make_model()
    pictures, classes = digits()
    examples = [
        {"pixel_values": picture.view(1, 8, 8), "labels": label}
        for picture, label in zip(pictures, classes, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=64, learning_rate=1e-3, lr_scheduler_type="constant",
            use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
            max_grad_norm=0, train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=examples)
        rule = dfa.DirectFeedbackAlignment(model, POINTS, ERROR_AT)
        use_rule(trainer, rule)
        trainer.train()
        rule.close()
    return model.eval()


if __name__ == "__main__":
    pictures, classes = digits()
    print(f"accuracy {accuracy(train()(pictures.view(-1, 1, 8, 8)).logits, classes):.3f}")
