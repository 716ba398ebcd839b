"""The blocks that small networks for small images are stacked from: ``block(in_channels, out_channels, stride)``."""

from torch import Tensor, nn
from torch.nn import functional as F


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
        self.shortcut = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize after each convolution and rectify the sum."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(residual + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1, at a quarter of the output's width, and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        width = out_channels // 4
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize after each convolution and rectify the sum."""
        narrow = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return self.relu(self.bn3(self.conv3(narrow)) + self.shortcut(x))


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


class VGGBlock(nn.Sequential):
    """A 3x3 convolution with a bias, batch norm and ReLU; max-pooling before it in the place of a stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        pool = nn.Identity() if stride == 1 else nn.MaxPool2d(stride)
        super().__init__(pool, nn.Conv2d(in_channels, out_channels, 3, padding=1), norm_relu(out_channels))


class ZeroPadding(nn.Module):
    """A shortcut without weights: each ``stride``-th pixel, and zeros for the channels that it has too few.

    Option A of He et al. (CVPR 2016). ``before`` of the zeros stand before the channels, the others behind them.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, before: int = 0):
        super().__init__()
        self.added, self.stride, self.before = out_channels - in_channels, stride, before

    def forward(self, x: Tensor) -> Tensor:
        """Leave out pixels, then add channels of zeros."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, self.before, self.added - self.before))


def norm_relu(channels: int) -> nn.Sequential:
    """Batch norm, then ReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
