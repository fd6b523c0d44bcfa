"""Models of timm, torchvision, diffusers and open_clip, which work on pictures."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from tests.zoo.kinds import Built

ROWS, CLASSES = 3, 4


def _classified(model: nn.Module, size: int) -> Built:
    images, labels = torch.randn(ROWS, 3, size, size), torch.arange(ROWS)
    return model, lambda model: cross_entropy(model(images), labels)


def timm_vit() -> Built:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=CLASSES)
    return _classified(model, 8)


def timm_convnext() -> Built:
    from timm.models.convnext import ConvNeXt

    model = ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_classes=CLASSES, patch_size=1, ls_init_value=1.0)
    return _classified(model, 8)


def timm_resnet() -> Built:
    from timm.models.resnet import BasicBlock, ResNet

    return _classified(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=CLASSES, channels=(4, 4, 8, 8)), 32)


def timm_bit() -> Built:
    from timm.models.resnetv2 import ResNetV2

    model = ResNetV2(layers=(1, 1), channels=(8, 16), num_classes=CLASSES, stem_chs=4, norm_layer=_group_norm)
    return _classified(model, 16)


def _group_norm(channels: int, **options: Any) -> nn.Module:
    from timm.layers import GroupNormAct

    return GroupNormAct(channels, num_groups=2, **options)


def timm_mixer() -> Built:
    from timm.models.mlp_mixer import MlpMixer

    return _classified(MlpMixer(img_size=8, patch_size=4, embed_dim=8, num_blocks=2, num_classes=CLASSES), 8)


def torchvision_resnet() -> Built:
    from torchvision.models.resnet import BasicBlock, ResNet

    return _classified(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES), 16)


def torchvision_vit() -> Built:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(8, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=CLASSES)
    nn.init.normal_(model.heads.get_parameter("head.weight"))  # made zero, which would hide what lies below
    return _classified(model, 8)


def torchvision_mobilenet() -> Built:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    rows = [(8, 3, 16, 8, True, "RE", 1, 1), (8, 3, 16, 8, True, "HS", 2, 1)]
    model = MobileNetV3([InvertedResidualConfig(*row, 1.0) for row in rows], 16, num_classes=CLASSES, dropout=0.0)
    return _classified(model, 16)


def _denoised(model: nn.Module, **conditions: Tensor) -> Built:
    noisy, noise, steps = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8), torch.tensor([3, 7])
    return model, lambda model: mse_loss(model(noisy, steps, **conditions).sample, noise)


def unet() -> Built:
    from diffusers import UNet2DModel

    model = UNet2DModel(
        sample_size=8, in_channels=2, out_channels=2, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )  # fmt: skip
    return _denoised(model)


def dit() -> Built:
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=2, out_channels=2, num_layers=2, norm_num_groups=2,
        sample_size=8, patch_size=4, num_embeds_ada_norm=10,
    )  # fmt: skip
    for dropped in (block.norm1.emb.class_embedder for block in model.transformer_blocks):
        dropped.dropout_prob = 0.0
    return _denoised(model, class_labels=torch.tensor([1, 2]))


def clip() -> Built:
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    seen = CLIPVisionCfg(layers=2, width=8, head_width=4, patch_size=4, image_size=8)
    model = CLIP(6, seen, CLIPTextCfg(context_length=5, vocab_size=11, width=8, heads=2, layers=2))
    images, texts = torch.randn(ROWS, 3, 8, 8), torch.randint(11, (ROWS, 5))
    return model, lambda model: ClipLoss()(*model(images, texts)[:3])
