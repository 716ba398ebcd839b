"""``stem: cifar``: let a network made for 224 px see a 32 px image at full resolution.

ImageNet networks make the image four times smaller before their first block. SimCLR and MoCo replace that
stem on CIFAR: the first convolution becomes 3x3 with stride 1 and the max-pool goes.
"""

from timm.layers import BlurPool2d
from torch import nn

# timm module of the network's class -> the parts of it that shrink the image before the first stage.
# Strided convolutions in them get stride 1 (and at most a 3x3 kernel), strided pools go.
STEMS: dict[str, tuple[str, ...]] = {
    "byobnet": ("stem",),  # RepVGG, GERNet, MobileOne, MobileViT and other block-of-blocks networks
    "convnext": ("stem",),
    "cspnet": ("stem",),
    "densenet": ("features.conv0", "features.pool0"),
    "dpn": ("features.conv1_1",),
    "edgenext": ("stem",),
    "efficientnet": ("conv_stem",),  # EfficientNet, MobileNetV1 and V2, MNASNet
    "fasternet": ("patch_embed",),
    "fastvit": ("stem",),
    "ghostnet": ("conv_stem",),
    "hgnet": ("stem",),
    "hrnet": ("conv1", "conv2"),
    "inception_next": ("stem",),
    "metaformer": ("stem",),
    "mobilenetv3": ("conv_stem",),  # MobileNetV3 and V4
    "regnet": ("stem",),
    "repghost": ("conv_stem",),
    "repvit": ("stem",),
    "resnet": ("conv1", "maxpool"),  # ResNet, ResNeXt, Wide ResNet, Res2Net, ResNeSt, SKNet, SE and ECA variants
    "resnetv2": ("stem",),
    "rexnet": ("stem",),
    "small": ("stem",),  # our CIFAR networks: nothing to change
    "starnet": ("stem",),
    "vovnet": ("stem",),
}


def cifar_stem(network: nn.Module, name: str) -> nn.Module:
    """Make the stem of ``network`` keep the resolution of its input, in place.

    Convolutions whose kernel is neither 3x3 nor 1x1 are replaced by new 3x3 ones, so their pretrained weights are lost;
    the others keep their weights. ``name`` is timm's of the network, for the sentence of the error.

    Raises:
        ValueError: the stem of the network's family is not known.
    """
    family = type(network).__module__.rpartition(".")[2]
    if family not in STEMS:
        raise ValueError(
            f"backbone {name!r} has no stem to change for small images: use stem 'default', or a backbone of "
            f"the timm families {', '.join(STEMS)}"
        )
    for path in STEMS[family]:
        parent_path, _, child = path.rpartition(".")
        parent = network.get_submodule(parent_path)
        setattr(parent, child, _keep_resolution(parent.get_submodule(child)))
    return network


def _keep_resolution(module: nn.Module) -> nn.Module:
    for child, part in module.named_children():
        setattr(module, child, _keep_resolution(part))
    if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
        return _unstrided(module)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d | BlurPool2d) and module.stride not in (1, (1, 1)):
        return nn.Identity()
    return module


def _unstrided(conv: nn.Conv2d) -> nn.Conv2d:
    if conv.kernel_size in ((1, 1), (3, 3)):
        conv.stride = (1, 1)
        return conv
    small = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        kernel_size=3,
        padding=1,
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    if small.bias is not None:
        nn.init.zeros_(small.bias)
    return small
