"""``data``: images, and how a batch of views is drawn from them."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from ssl_transfer.catalog.presets import PRESETS
from ssl_transfer.section import Count, NotNegative, Preset, Probability, Range, Section

HELD_OUT = "held_out"  # as ``test``: what ``held_out`` keeps from training


class Augment(Section):
    """How a view is made: a preset, and any parameter of :class:`ssl_transfer.data.Augment` that should differ."""

    preset: Preset
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


Decoded = Literal["folder", "hf", "webdataset", "cub", "cars", "sop", "in_shop"]  # files of any size
Dataset = Literal["digits", "cifar10", "cifar100", "stl10", Decoded]


class Data(Section):
    """Images, and how a batch of views is drawn from them."""

    dataset: Dataset
    root: str = "data"
    download: bool = True
    split: str | None = None  # what is trained on, such as unlabeled of stl10; null: what train names
    train: str | None = None  # the labeled images that probes learn from; null: the data set's split train
    test: str | None = None  # those that are scored; null: its split test
    image_size: Count | None = None  # side in pixels to which the images of files are brought
    on_error: Literal["raise", "skip"] = "raise"  # what to do with images that cannot be decoded
    resident: Literal["auto", True, False] = "auto"  # hold all images, or decode when needed; auto: hold up to 4 GiB
    workers: Annotated[int, Field(ge=0)] | None = None  # that decode, for each process; null: one for each of its cores
    crop_size: Count | None = None  # side of a view, and of the middle that is scored; null: the whole image
    train_classes: Count | None = None  # of a folder: so many of its sorted classes train, the others are for testing
    images: Count | None = None  # train on so many, the same whatever the seed; null: on all
    held_out: Count | None = None  # of the split that is trained on: for monitor, and for scores with test: held_out
    batch_size: Annotated[int, Field(ge=2)]  # images per step over all processes
    per_class: Count | None = None  # images of a class in a batch; null: an epoch visits every image once
    views: Count = 2
    fixed_views: Count | None = None  # versions of each image, seen over and over; null: a new one each epoch
    augment: Augment  # a preset's name alone is short for {preset: name}

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        decoded = self.dataset in get_args(Decoded)
        if decoded != (self.image_size is not None):
            raise ValueError(
                f"dataset {self.dataset} needs image_size, the side in pixels to which its images are brought"
                if decoded
                else f"the images of {self.dataset} have their size: leave out image_size"
            )
        if self.resident is False and not decoded:
            raise ValueError(f"{self.dataset} is always held in memory: leave out resident")
        if self.crop_size is not None and self.image_size is not None and self.crop_size > self.image_size:
            raise ValueError(f"crop_size is {self.crop_size} but image_size only {self.image_size}")
        if self.train_classes is not None and self.dataset != "folder":
            raise ValueError(f"train_classes is for dataset folder: {self.dataset} has a split of its own")
        if self.per_class is not None and self.batch_size % self.per_class:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of per_class {self.per_class}")
        if self.test == HELD_OUT and self.held_out is None and not decoded:
            raise ValueError(f"test is {HELD_OUT}: say with held_out how many images of {self.splits['training']}")
        return self

    @property
    def tests_held_out(self) -> bool:
        """Whether scores are of the images held out of those that are trained on, and the test split is left alone."""
        return self.test == HELD_OUT and self.held_out is not None

    @property
    def splits(self) -> dict[str, str]:
        """The split that is ``training``, the one whose labels probes learn from (``train``), and the ``test`` one.

        One split can be of several parts, which share no image of it but ``training`` and ``train``.
        """
        train = self.train or "train"
        training = self.split or train
        return {"training": training, "train": train, "test": training if self.tests_held_out else self.test or "test"}

    def sees_all(self, part: str) -> bool:
        """Whether a part is a whole split: ``images`` and ``held_out`` limit what is learned from the trained one."""
        if part == "test":
            return not self.tests_held_out
        return self.images is self.held_out is None or self.splits[part] != self.splits["training"]

    def share_classes(self, one: str, other: str) -> bool:
        """Whether two splits are of the same classes, which those of metric learning, train and all others, are not."""
        disjoint = self.dataset in ("cub", "cars", "sop", "in_shop") or self.train_classes is not None
        return not disjoint or (one == "train") == (other == "train")
