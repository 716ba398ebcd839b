"""``data``: images, and how a batch of views is drawn from them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ssl_transfer.config.fields import Count, NotNegative, Probability, Range, Section
from ssl_transfer.config.messages import suggest
from ssl_transfer.data.presets import PRESETS


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"there is no such preset{suggest(name, PRESETS)}")
    return name


class Augment(Section):
    """How a view is made: a preset, and any parameter of :class:`ssl_transfer.data.Augment` that should differ."""

    preset: Annotated[str, AfterValidator(_known_preset)]
    crop_scale: Range | None = None
    crop_ratio: Range | None = None
    crop_padding: Annotated[int, Field(ge=0)] | None = None
    flip: Probability | None = None
    color_jitter: Probability | None = None
    brightness: NotNegative | None = None
    contrast: NotNegative | None = None
    saturation: NotNegative | None = None
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = None
    grayscale: Probability | None = None
    blur: Probability | None = None
    blur_sigma: Range | None = None
    solarize: Probability | None = None
    solarize_threshold: Probability | None = None
    cutout: Annotated[int, Field(ge=0)] | None = None

    def views(self, count: int) -> list[dict[str, Any]]:
        """The keyword arguments of each view's augmentation; a preset with fewer views than asked for is cycled."""
        changed = self.model_dump(exclude={"preset"}, exclude_none=True)
        preset = PRESETS[self.preset]
        return [{**preset[view % len(preset)], **changed} for view in range(count)]


class Data(Section):
    """Images, and how a batch of views is drawn from them."""

    dataset: Literal["digits", "cifar10", "cifar100"]
    root: str = "data"
    download: bool = True
    batch_size: Annotated[int, Field(ge=2)]  # images per step over all processes
    views: Count = 2
    augment: Augment  # a preset's name alone is short for {preset: name}
