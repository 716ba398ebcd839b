"""Small networks for small images, registered in timm: CIFAR ResNets, Wide ResNets, a tiny one for digits.

All see the image at full resolution first (3x3 convolution, stride 1) and halve it twice.
"""

from collections.abc import Callable
from typing import Any

from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices  # what timm's own networks use
from torch import Tensor, nn

BlockMaker = Callable[[int, int, int], nn.Module]


class SmallNet(nn.Module):
    """A stem, three stages, a last norm and a linear classifier, with the interface of timm's networks.

    ``block(in_channels, out_channels, stride)`` makes the blocks; stages after the first begin with stride 2.
    """

    def __init__(
        self,
        *,
        block: BlockMaker,
        depth: int,
        widths: tuple[int, int, int, int],
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
    ):
        super().__init__()
        stem_width, *stage_widths = widths
        pre_activation = block is WideBlock
        self.stem = nn.Conv2d(in_chans, stem_width, 3, padding=1, bias=False)
        # Pre-activation blocks begin with a norm and leave the last stage's output to be normalized.
        self.stem_norm = nn.Identity() if pre_activation else norm_relu(stem_width)
        self.stages = nn.Sequential()
        self.feature_info = []
        in_channels = stem_width
        for index, width in enumerate(stage_widths):
            first = block(in_channels, width, 2 if index else 1)
            self.stages.append(nn.Sequential(first, *(block(width, width, 1) for _ in range(depth - 1))))
            self.feature_info.append({"num_chs": width, "reduction": 2**index, "module": f"stages.{index}"})
            in_channels = width
        self.norm = norm_relu(in_channels) if pre_activation else nn.Identity()
        self.num_features = self.head_hidden_size = in_channels
        self.reset_classifier(num_classes, global_pool)
        self.apply(_initialize)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; zero classes means none."""
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map."""
        return self.norm(self.stages(self.stem_norm(self.stem(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool, then classify unless ``pre_logits``."""
        x = self.global_pool(x)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or pooled features when there is no classifier."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The stages' feature maps, with the final one before them unless ``intermediates_only``."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}: only 'NCHW' is given")
        wanted, deepest = feature_take_indices(len(self.stages), indices)
        x = self.stem_norm(self.stem(x))
        maps = []
        for index, stage in enumerate(self.stages):
            if stop_early and index > deepest:
                break
            x = stage(x)
            if index in wanted:
                maps.append(self.norm(x) if norm and index == len(self.stages) - 1 else x)
        return maps if intermediates_only else (self.norm(x), maps)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016).

    The shortcut is option B, a 1x1 convolution where the shape changes, as in the distillation literature;
    He et al. pad with zeros on CIFAR (option A).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize after each convolution and rectify the sum."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(residual + self.shortcut(x))


class WideBlock(nn.Module):
    """Pre-activation block of Wide ResNets (Zagoruyko and Komodakis, BMVC 2016), without dropout."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.norm1 = norm_relu(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm2 = norm_relu(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        changes_shape = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalize and rectify before each convolution; a convolved shortcut starts after the first norm."""
        activated = self.norm1(x)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.conv2(self.norm2(self.conv1(activated)))


class PlainBlock(nn.Sequential):
    """A 3x3 convolution, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), norm_relu(out_channels))


def norm_relu(channels: int) -> nn.Sequential:
    """Batch norm, then ReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# name -> block, blocks per stage, width of the stem and of each stage. n blocks per stage make depth 6n + 2,
# for a Wide ResNet 6n + 4. "8x4" is four times as wide after the stem, as in the distillation literature.
ARCHITECTURES: dict[str, tuple[BlockMaker, int, tuple[int, int, int, int]]] = {
    "cifar_resnet8": (BasicBlock, 1, (16, 16, 32, 64)),
    "cifar_resnet14": (BasicBlock, 2, (16, 16, 32, 64)),
    "cifar_resnet20": (BasicBlock, 3, (16, 16, 32, 64)),
    "cifar_resnet32": (BasicBlock, 5, (16, 16, 32, 64)),
    "cifar_resnet44": (BasicBlock, 7, (16, 16, 32, 64)),
    "cifar_resnet56": (BasicBlock, 9, (16, 16, 32, 64)),
    "cifar_resnet110": (BasicBlock, 18, (16, 16, 32, 64)),
    "cifar_resnet8x4": (BasicBlock, 1, (32, 64, 128, 256)),
    "cifar_resnet32x4": (BasicBlock, 5, (32, 64, 128, 256)),
    "cifar_wrn16_1": (WideBlock, 2, (16, 16, 32, 64)),
    "cifar_wrn16_2": (WideBlock, 2, (16, 32, 64, 128)),
    "cifar_wrn40_1": (WideBlock, 6, (16, 16, 32, 64)),
    "cifar_wrn40_2": (WideBlock, 6, (16, 32, 64, 128)),
    "tiny_convnet": (PlainBlock, 2, (32, 32, 64, 128)),  # 0.3 million weights; sees something in 8x8 digits
}

default_cfgs = generate_default_cfgs(
    {
        name: {
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "mean": (0.4914, 0.4822, 0.4465),  # of CIFAR-10's training images
            "std": (0.2470, 0.2435, 0.2616),
            "num_classes": 10,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "first_conv": "stem",
            "classifier": "fc",
        }
        for name in ARCHITECTURES
    }
)


def _register(name: str) -> None:
    block, depth, widths = ARCHITECTURES[name]

    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return build_model_with_cfg(SmallNet, name, pretrained, block=block, depth=depth, widths=widths, **arguments)

    build.__name__ = name  # the name timm knows it by
    register_model(build)


for _name in ARCHITECTURES:
    _register(_name)
