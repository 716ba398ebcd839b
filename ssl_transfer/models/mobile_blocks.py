"""Blocks of networks for small devices: ``block(in_channels, out_channels, stride)``.

Details that differ from the papers are those of the CIFAR networks of the distillation literature (RepDistiller).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow (MobileNetV2; Sandler et al., CVPR 2018), with ReLU in place of ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int = 6):
        super().__init__()
        width = expansion * in_channels
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Add the input where the shape stays; nothing is rectified at the end."""
        wide = relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))
        narrow = self.bn3(self.conv3(wide))
        return x + narrow if self.has_shortcut else narrow


class ShuffleV1Block(nn.Module):
    """Grouped 1x1 convolutions with their channels shuffled (ShuffleNet; Zhang et al., CVPR 2018).

    With a stride the averaged input is concatenated, not added. The first 1x1 convolution is grouped only where its
    channels divide by the groups and come from another block: after the stem of 24 it is not.
    """

    groups = 3
    stem_width = 24

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.concatenates = stride != 1
        added = out_channels - in_channels if self.concatenates else out_channels
        width = added // 4
        self.first_groups = 1 if in_channels == self.stem_width else self.groups
        self.conv1 = nn.Conv2d(in_channels, width, 1, groups=self.first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, added, 1, groups=self.groups, bias=False)
        self.bn3 = nn.BatchNorm2d(added)
        self.shortcut = nn.AvgPool2d(3, stride, padding=1) if self.concatenates else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Shuffle after the first convolution and rectify the end."""
        shuffled = shuffle(relu(self.bn1(self.conv1(x))), self.first_groups)
        new = self.bn3(self.conv3(relu(self.bn2(self.conv2(shuffled)))))
        shortcut = self.shortcut(x)
        return relu(torch.cat([new, shortcut], 1) if self.concatenates else new + shortcut)


class ShuffleV2Block(nn.Module):
    """Convolve one half of the channels, keep the other, shuffle both (ShuffleNet V2; Ma et al., ECCV 2018).

    Raises:
        ValueError: the shape is to change, which only :class:`ShuffleV2Down` does.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if stride != 1 or in_channels != out_channels:
            raise ValueError(f"{in_channels} to {out_channels} channels, stride {stride}: take ShuffleV2Down")
        half = in_channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """The second half is the one that is convolved."""
        kept, x = x.chunk(2, dim=1)
        x = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return shuffle(torch.cat([kept, relu(self.bn3(self.conv3(x)))], 1), 2)


class ShuffleV2Down(nn.Module):
    """Both branches of ShuffleNet V2 convolve all channels, with a stride; each gives half of the output."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """The short branch stands before the long one."""
        short = relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        long = self.bn4(self.conv4(relu(self.bn3(self.conv3(x)))))
        return shuffle(torch.cat([short, relu(self.bn5(self.conv5(long)))], 1), 2)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels of all groups in turn: the first of each group, then the second of each."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
