"""Models of other people at a tiny size, with random weights, and what to train them on."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from tests.zoo import graphs, language, recurrent, vision
from tests.zoo.kinds import Built


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: as the matrix shows it.
        library: the package that it comes from.
        build: makes the model, and the function that computes its loss.
        points, error_at: patterns in which `*` stands for one segment of a name.
        dtype: double precision, but for what has none.
        batch_dims: of the rules that have matrices.
    """

    name: str
    library: str
    build: Callable[[], Built]
    points: tuple[str, ...]
    error_at: tuple[str, ...] = ("",)
    dtype: torch.dtype = torch.double
    batch_dims: int | None = None

    @property
    def installed(self) -> bool:
        return find_spec(self.library) is not None


ENTRIES = [
    Entry("nn.TransformerEncoder", "torch", recurrent.encoder, ("1.layers.*",)),
    Entry(
        "nn.Transformer",
        "torch",
        recurrent.transformer,
        ("body.encoder.layers.*", "body.decoder.layers.*"),
        ("body.encoder", "head"),
    ),
    Entry("nn.LSTM", "torch", recurrent.lstm, ("embed", "body"), dtype=torch.float),  # in which torch fuses it
    Entry("nn.GRU", "torch", recurrent.gru, ("embed", "body")),
    Entry("GPT-2", "transformers", language.gpt2, ("transformer.h.*",), ("lm_head",)),
    Entry("Llama", "transformers", language.llama, ("model.layers.*",), ("lm_head",)),
    Entry("Mixtral", "transformers", language.mixtral, ("model.layers.*",), ("lm_head",), torch.float),
    Entry("Mamba", "transformers", language.mamba, ("backbone.layers.*",), ("lm_head",)),
    Entry("BERT", "transformers", language.bert, ("bert.encoder.layer.*",), ("classifier",)),
    Entry(
        "T5",
        "transformers",
        language.t5,
        ("encoder.block.*", "decoder.block.*"),
        ("encoder.final_layer_norm", "lm_head"),
    ),
    Entry("ViT (Hugging Face)", "transformers", language.vit, ("vit.layers.*",), ("classifier",)),
    Entry("ViT (timm)", "timm", vision.timm_vit, ("blocks.*",)),
    Entry("ConvNeXt (timm)", "timm", vision.timm_convnext, ("stages.*.blocks.*",)),
    Entry("ResNet (timm)", "timm", vision.timm_resnet, ("layer*.*",)),
    Entry("BiT ResNet (timm)", "timm", vision.timm_bit, ("stages.*.blocks.*",)),
    Entry("MLP-Mixer (timm)", "timm", vision.timm_mixer, ("blocks.*",)),
    Entry("ResNet (torchvision)", "torchvision", vision.torchvision_resnet, ("layer*.*",)),
    Entry("ViT (torchvision)", "torchvision", vision.torchvision_vit, ("encoder.layers.*",)),
    Entry("MobileNetV3 (torchvision)", "torchvision", vision.torchvision_mobilenet, ("features.*",)),
    Entry("GraphSAGE", "torch_geometric", graphs.graph_sage, ("convs.0", "convs.1")),
    Entry("GIN", "torch_geometric", graphs.gin, ("convs.0", "convs.1")),
    Entry("GATv2", "torch_geometric", graphs.gat_v2, ("act",)),
    Entry("GCN", "torch_geometric", graphs.gcn, ("act",)),
    Entry("UNet2D", "diffusers", vision.unet, ("down_blocks.*.resnets.*", "mid_block"), ("conv_out",), batch_dims=1),
    Entry("DiT", "diffusers", vision.dit, ("transformer_blocks.*",), ("proj_out_2",)),
    Entry(
        "CLIP",
        "open_clip",
        vision.clip,
        ("visual.transformer.resblocks.*", "transformer.resblocks.*"),
        ("visual", "ln_final"),
    ),
]
