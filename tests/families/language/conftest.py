"""A small text and a small Transformer that several tests share."""

from pathlib import Path

import torch
from pytest import fixture

from benchmarks.families.language.models import Transformer

LINES = [
    " = The lane = ",
    "",
    "The old lane that a bird sees crosses many fields \u2028 quickly .",
    "Many old lanes cross the old field , and the older birds sing .",
    "",
]


@fixture
def text_folder(tmp_path: Path) -> Path:
    """WikiText-2 in miniature, where a data folder would have it."""
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    for split, repeats in (("train", 20), ("valid", 4), ("test", 3)):
        (folder / f"wiki.{split}.tokens").write_text("\n".join(LINES * repeats) + "\n", encoding="utf-8", newline="\n")
    return tmp_path


@fixture
def model() -> Transformer:
    """Three blocks in double precision, without dropout, its biases and norms away from their initial values."""
    torch.manual_seed(3)
    model = Transformer(11, 7, width=8, blocks=3, heads=2, hidden=12, dropout=0.0).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
