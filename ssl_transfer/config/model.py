"""``model``: the network that is trained."""

from collections.abc import Iterator
from typing import Literal

from ssl_transfer.section import BelowOne, Count, CountOrZero, Deviation, Mean, Section, rule


class Model(Section):
    """The network that is trained."""

    backbone: str  # a network of timm or of docs/backbones.md, such as resnet18 or cifar_resnet8
    stem: Literal["default", "cifar"] = "default"  # cifar: for small images, the first layers keep the resolution
    pooling: Literal["avg", "max", "avgmax"] | None = None  # avgmax: the mean of both; null: the backbone's own
    embedding_dim: Count | None = None  # width of a linear head; null: no head, the backbone's features are the output
    pretrained: bool = False  # start from timm's weights for the backbone, not from random ones
    freeze: CountOrZero | None = None  # keep the stem and this many stages as pretrained; null: train everything
    drop_path: BelowOne = 0.0  # probability with which a residual branch of the last block is left out in training
    mean: Mean | None = None  # of pixels from 0 to 1, by color; null: of the pretrained weights, else of the data set
    std: Deviation | None = None  # standard deviation likewise

    @rule
    def _freezes_weights_worth_keeping(self) -> Iterator[str]:
        if self.freeze is not None and not self.pretrained:
            yield "freeze keeps the weights that training starts from: set pretrained: true as well"

    @rule
    def _freezes_no_new_stem(self) -> Iterator[str]:
        if self.freeze is not None and self.stem == "cifar":
            yield "freeze includes the stem, and stem: cifar makes a new one: use stem: default"

    @rule
    def _mean_and_std_are_of_the_same_colors(self) -> Iterator[str]:
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            yield f"mean has {len(self.mean)} values and std {len(self.std)}: give both for the same colors"
