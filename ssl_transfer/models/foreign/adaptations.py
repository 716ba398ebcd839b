"""Where a tool's network computes something else than ours that takes the same weights.

Each function changes a network in place and returns in words what it changed, nothing if there was nothing to change.
"""

from torch import nn

from ssl_transfer.models.blocks import BasicBlock, Bottleneck, ZeroPadding


def solo_learn_padding(network: nn.Module) -> str:
    """solo-learn's 3x3 first convolution for CIFAR has padding 2, so its maps begin at 34 px (solo/methods/base.py)."""
    conv = getattr(network, "conv1", None)
    if not (isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.stride == (1, 1)):
        return ""
    conv.padding = (2, 2)
    return "a padding of 2 in its first convolution"


def moco_v3_attention(network: nn.Module) -> str:
    """MoCo v3's ViT-Small has 12 heads of 32 channels (vits.py), timm's has 6 of 64; the weights fit either."""
    small = [
        block.attn for block in getattr(network, "blocks", []) if block.attn.num_heads * block.attn.head_dim == 384
    ]
    for attention in small:
        attention.num_heads, attention.head_dim = 12, 32
        attention.scale = attention.head_dim**-0.5
    return "12 heads of attention" if small else ""


def no_first_activation(network: nn.Module) -> None:
    """No ReLU after the first batch norm.

    lightly's ResNet calls it as a function, so ``nn.Sequential(*resnet.children())``, as lightly's documentation
    builds backbones from it, goes without.
    """
    network.act1 = nn.Identity()


def zeros_around(network: nn.Module) -> str:
    """Shortcuts without weights whose new channels, all zero, stand half before and half behind the others."""
    paddings = _paddings(network)
    for padding in paddings:
        padding.before = padding.added // 2
    return "zeros on both sides of the channels in shortcuts" if paddings else ""


def zeros_behind(network: nn.Module) -> str:
    """Shortcuts without weights whose new channels, all zero, stand behind the others."""
    paddings = _paddings(network)
    for padding in paddings:
        padding.before = 0
    return "zeros behind the channels in shortcuts" if paddings else ""


def without_shortcut_weights(network: nn.Module) -> bool:
    """Replace the convolved shortcuts of a CIFAR network by ones without weights; whether there were any.

    He et al.'s option A. Where its zeros stand is still to be decided: a file does not say it.
    """
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock | Bottleneck)]
    shortcuts = [(block, conv) for block in blocks for conv in block.shortcut.children()]
    for block, conv in shortcuts:
        if isinstance(conv, nn.Conv2d):
            block.shortcut = ZeroPadding(conv.in_channels, conv.out_channels, conv.stride[0])
    return bool(shortcuts)


def _paddings(network: nn.Module) -> list[ZeroPadding]:
    return [module for module in network.modules() if isinstance(module, ZeroPadding)]
