"""Small networks for small images, registered in timm: the CIFAR networks of the distillation literature.

Names, widths and layers are those of RepDistiller (Tian et al., "Contrastive representation distillation", ICLR 2020),
whose checkpoints :mod:`ssl_transfer.models.repdistiller` reads; and a tiny one for digits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices  # what timm's own networks use
from torch import Tensor, nn

from ssl_transfer.models.blocks import BasicBlock, Bottleneck, PlainBlock, VGGBlock, WideBlock, norm_relu
from ssl_transfer.models.mobile_blocks import InvertedResidual, ShuffleV1Block, ShuffleV2Block, ShuffleV2Down

Step = tuple[Callable[[int, int, int], nn.Module], int, int]  # a block, the channels it gives, its stride


@dataclass(frozen=True)
class Layout:
    """A network: the width of its stem and the blocks of each stage.

    ``pre_activation`` blocks begin with a norm and leave the last stage's output to be normalized. ``last_width`` is
    that of a 1x1 convolution after the last stage. ``he_weights`` draws the convolutions' first weights as He et al.
    do; without it they are torch's.
    """

    stem: int
    stages: tuple[tuple[Step, ...], ...]
    stem_kernel: int = 3
    stem_stride: int = 1
    stem_bias: bool = False
    pre_activation: bool = False
    last_width: int | None = None
    he_weights: bool = True


class SmallNet(nn.Module):
    """A stem, stages of blocks, a last norm and a linear classifier, with the interface of timm's networks.

    ``layout`` says which blocks, ``num_classes=0`` leaves out the classifier, ``global_pool`` is a pooling of timm.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
    ):
        super().__init__()
        kernel, channels, reduction = layout.stem_kernel, layout.stem, layout.stem_stride
        self.stem = nn.Conv2d(in_chans, channels, kernel, reduction, kernel // 2, bias=layout.stem_bias)
        self.stem_norm = nn.Identity() if layout.pre_activation else norm_relu(channels)
        self.stages = nn.Sequential()
        self.feature_info = []
        for index, steps in enumerate(layout.stages):
            blocks = []
            for block, width, stride in steps:
                blocks.append(block(channels, width, stride))
                channels, reduction = width, reduction * stride
            self.stages.append(nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": f"stages.{index}"})
        self.norm: nn.Module = norm_relu(channels) if layout.pre_activation else nn.Identity()
        if layout.last_width is not None:
            last = nn.Conv2d(channels, layout.last_width, 1, bias=False)
            self.norm, channels = nn.Sequential(last, norm_relu(layout.last_width)), layout.last_width
        self.num_features = self.head_hidden_size = channels
        self.reset_classifier(num_classes, global_pool)
        if layout.he_weights:
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
        """The stages' feature maps, with the final one before them unless ``intermediates_only``.

        ``indices`` are those of the stages, or how many of the last; None means all. ``norm`` applies the last norm to
        the last stage's map, and ``stop_early`` leaves out stages after the last one wanted; timm's networks have the
        same interface.

        Raises:
            ValueError: ``output_fmt`` is not NCHW.
        """
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


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def stage(block: Callable[[int, int, int], nn.Module], width: int, depth: int, stride: int = 1) -> tuple[Step, ...]:
    """``depth`` equal blocks, of which the first has the stride."""
    return ((block, width, stride), *((block, width, 1),) * (depth - 1))


def _residual(depth: int, *widths: int, block: Any = BasicBlock, pre_activation: bool = False) -> Layout:
    """``depth`` blocks in each of three stages: 6 depth + 2 layers, 6 depth + 4 for a Wide ResNet."""
    stem, *others = widths
    stages = tuple(stage(block, width, depth, 2 if index else 1) for index, width in enumerate(others))
    return Layout(stem, stages, pre_activation=pre_activation)


_wide = partial(_residual, block=WideBlock, pre_activation=True)


def _vgg(depth: int, first_depth: int, width: int = 64) -> Layout:
    """Five groups of ``depth`` convolutions, ``first_depth`` in the first two; pooled before groups two to four.

    ``width`` is that of the first group. RepDistiller pools images of 64 px once more; this network does not.
    """
    first = stage(VGGBlock, width, first_depth - 1) if first_depth > 1 else ()
    second = first + stage(VGGBlock, 2 * width, first_depth, 2)
    rest = (stage(VGGBlock, 4 * width, depth, 2), *(stage(VGGBlock, 8 * width, depth, stride) for stride in (2, 1)))
    return Layout(width, (second, *rest), stem_bias=True)


_MOBILE_STAGES = (  # at half width; cut where the map's size changes, as its feature maps are compared
    stage(partial(InvertedResidual, expansion=1), 8, 1) + stage(InvertedResidual, 12, 2),
    stage(InvertedResidual, 16, 3, 2),
    stage(InvertedResidual, 32, 4, 2) + stage(InvertedResidual, 48, 3),
    stage(InvertedResidual, 80, 3, 2) + stage(InvertedResidual, 160, 1),
)
_SHUFFLE_V1_STAGES = tuple(stage(ShuffleV1Block, width, depth, 2) for width, depth in ((240, 4), (480, 8), (960, 4)))
_SHUFFLE_V2_STAGES = tuple(
    ((ShuffleV2Down, width, 2), *stage(ShuffleV2Block, width, depth)) for width, depth in ((116, 3), (232, 7), (464, 3))
)
_RESNET50_STAGES = tuple(
    stage(Bottleneck, width, depth, 2 if index else 1)
    for index, (width, depth) in enumerate(((256, 3), (512, 4), (1024, 6), (2048, 3)))
)

# "8x4" is four times as wide after the stem, as in the distillation literature.
ARCHITECTURES: dict[str, Layout] = {
    "cifar_resnet8": _residual(1, 16, 16, 32, 64),
    "cifar_resnet14": _residual(2, 16, 16, 32, 64),
    "cifar_resnet20": _residual(3, 16, 16, 32, 64),
    "cifar_resnet32": _residual(5, 16, 16, 32, 64),
    "cifar_resnet44": _residual(7, 16, 16, 32, 64),
    "cifar_resnet56": _residual(9, 16, 16, 32, 64),
    "cifar_resnet110": _residual(18, 16, 16, 32, 64),
    "cifar_resnet8x4": _residual(1, 32, 64, 128, 256),
    "cifar_resnet32x4": _residual(5, 32, 64, 128, 256),
    "cifar_resnet50": Layout(64, _RESNET50_STAGES),
    "cifar_wrn16_1": _wide(2, 16, 16, 32, 64),
    "cifar_wrn16_2": _wide(2, 16, 32, 64, 128),
    "cifar_wrn40_1": _wide(6, 16, 16, 32, 64),
    "cifar_wrn40_2": _wide(6, 16, 32, 64, 128),
    # One network from 16 thousand weights to 4 million: the width halves, the weights are a quarter. The half trains
    # twice as fast as tiny_convnet, with three times its weights.
    "cifar_vgg8_sixteenth": _vgg(1, 1, width=4),
    "cifar_vgg8_eighth": _vgg(1, 1, width=8),
    "cifar_vgg8_quarter": _vgg(1, 1, width=16),
    "cifar_vgg8_half": _vgg(1, 1, width=32),
    "cifar_vgg8": _vgg(1, 1),
    "cifar_vgg11": _vgg(2, 1),
    "cifar_vgg13": _vgg(2, 2),
    "cifar_mobilenetv2_half": Layout(16, _MOBILE_STAGES, stem_stride=2, last_width=1280),
    "cifar_shufflenet_v1": Layout(24, _SHUFFLE_V1_STAGES, stem_kernel=1, he_weights=False),
    "cifar_shufflenet_v2": Layout(24, _SHUFFLE_V2_STAGES, stem_kernel=1, last_width=1024, he_weights=False),
    "tiny_convnet": _residual(
        2, 32, 32, 64, 128, block=PlainBlock
    ),  # 0.3 million weights; sees something in 8x8 digits
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
    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return build_model_with_cfg(SmallNet, name, pretrained, layout=ARCHITECTURES[name], **arguments)

    build.__name__ = name  # the name timm knows it by
    register_model(build)


for _name in ARCHITECTURES:
    _register(_name)
