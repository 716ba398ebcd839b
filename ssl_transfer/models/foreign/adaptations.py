"""Where a tool's network computes something else than timm's network that takes the same weights."""

from torch import nn


def solo_learn_padding(network: nn.Module) -> None:
    """solo-learn's 3x3 first convolution for CIFAR has padding 2, so its maps begin at 34 px (solo/methods/base.py)."""
    conv = getattr(network, "conv1", None)
    if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.stride == (1, 1):
        conv.padding = (2, 2)


def moco_v3_attention(network: nn.Module) -> None:
    """MoCo v3's ViT-Small has 12 heads of 32 channels (vits.py), timm's has 6 of 64; the weights fit either."""
    for block in getattr(network, "blocks", []):
        attention = block.attn
        channels = attention.num_heads * attention.head_dim
        if channels == 384:
            attention.num_heads, attention.head_dim = 12, 32
            attention.scale = attention.head_dim**-0.5


def no_first_activation(network: nn.Module) -> None:
    """No ReLU after the first batch norm.

    lightly's ResNet calls it as a function, so ``nn.Sequential(*resnet.children())``, as lightly's documentation
    builds backbones from it, goes without.
    """
    network.act1 = nn.Identity()
