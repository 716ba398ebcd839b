"""``data``: images, and how a batch of views is drawn from them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from ssl_transfer.catalog.presets import PRESETS
from ssl_transfer.files import is_address
from ssl_transfer.section import (
    AutoOrBool,
    Count,
    CountOrZero,
    Location,
    NotNegative,
    Preset,
    Probability,
    Range,
    Root,
    Section,
    Shares,
    TrueOrLeftOut,
    rule,
)

HELD_OUT = "held_out"  # as ``test``: what ``held_out`` keeps from training


class Augment(Section):
    """How a view is made: a preset, and each setting of :class:`ssl_transfer.data.Augment` that should be another.

    The steps follow each other in the order of the keys. What is left out is as the preset has it.
    """

    preset: Preset  # simclr, moco_v1, moco_v2, moco_v3, byol, weak, crop, digits or eval: docs/data.md
    crop_scale: Shares | None = None  # lowest and highest share of the image's area that a random crop covers
    crop_ratio: Range | None = None  # lowest and highest width of a crop divided by its height
    crop_padding: CountOrZero | None = None  # pixels by which the image is mirrored outwards before a crop of full size
    flip: Probability | None = None  # probability that left and right change places
    color_jitter: Probability | None = None  # probability that the next four are changed, in random order
    brightness: NotNegative | None = None  # b: the factor is drawn between 1 - b (at least 0) and 1 + b
    contrast: NotNegative | None = None  # likewise
    saturation: NotNegative | None = None  # likewise
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = None  # furthest turn to either side, 0.5 being half the circle
    grayscale: Probability | None = None  # probability that colors become grays
    blur: Probability | None = None  # probability of a Gaussian blur
    blur_sigma: Range | None = None  # lowest and highest standard deviation of the blur, in pixels
    solarize: Probability | None = None  # probability that bright values are inverted
    solarize_threshold: Probability | None = None  # value from which on they are, between 0 (black) and 1
    cutout: CountOrZero | None = None  # side in pixels of a gray square somewhere in the view; 0: none

    def views(self, count: int) -> list[dict[str, Any]]:
        """The keyword arguments of each view's augmentation; a preset with fewer views than asked for is cycled."""
        changed = {name: value for name, value in self if name != "preset" and value is not None}
        preset = PRESETS[self.preset]
        return [{**preset[view % len(preset)], **changed} for view in range(count)]

    @rule
    def _crops_in_one_way(self) -> Iterator[str]:
        for view in self.views(1):
            scale, padding = view.get("crop_scale"), view.get("crop_padding")
            if scale and padding:
                yield (
                    f"crop_scale {list(scale)} and crop_padding {padding} are two ways to crop, one perhaps of the "
                    f"preset {self.preset}: leave one out, take another preset, or set crop_padding: 0"
                )


# The sets of transfer benchmarks that are files: docs/suite.md.
Benchmark = Literal[
    "aircraft",
    "caltech101",
    "cub200",
    "dtd",
    "eurosat",
    "flowers102",
    "food101",
    "gtsrb",
    "pcam",
    "pets",
    "resisc45",
    "stanford_cars",
    "sun397",
    "voc2007",
]
Files = Literal["folder", "hf", "webdataset", "cub", "cars", "sop", "in_shop"]
Decoded = Literal[Files, Benchmark]  # of images of any size
Dataset = Literal["digits", "cifar10", "cifar100", "stl10", "svhn", Decoded]
_SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "stl10": 96, "svhn": 32}  # in pixels, of what comes as arrays


class Data(Section):
    """Images, and how a batch of views is drawn from them; docs/data.md tells more.

    An image of a file is first brought to a square of ``image_size``. Of that square a view is made, which is what the
    network sees in training, ``crop_size`` pixels wide. In scoring the network sees the middle of the square, as wide
    as a view. Without ``crop_size`` both are as wide as the square.

    There are three sets of images. The network trains on those of ``split``; probes learn from ``train``, with labels;
    scores are of ``test``. Left out, they are the data set's own splits train, train and test. ``images`` and
    ``held_out`` take parts of what is trained on, for training and for probes alike, the same ones for every seed.
    """

    dataset: Dataset  # what lies in root, and how: docs/data.md
    root: Root = "data"  # the folder in which the data set lies, or to which it is downloaded; digits needs none
    # of webdataset also an address, such as s3://bucket/folder
    download: bool = True  # fetch cifar10, cifar100, stl10 and svhn where files are missing; others never are
    split: Location | None = None  # split that is trained on, such as unlabeled of stl10; null: the one of train
    train: Location | None = None  # split whose images and labels probes learn from; null: the split train
    test: Location | None = None  # split that is scored, or held_out: the images that held_out keeps; null: test
    image_size: Count | None = (
        None  # side in pixels to which images of files are brought; of files alone, which need it
    )
    on_error: Literal["raise", "skip"] = "raise"  # images that cannot be decoded: stop and list them, or leave them out
    unchecked: TrueOrLeftOut | None = None  # do not decode all streamed images ahead to find those that are broken
    resident: AutoOrBool = "auto"  # true: hold all images in memory; false: decode as needed; auto: hold up to 4 GiB
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None  # processes that decode, for each training process;
    # null: as many as the training process has cores
    crop_size: Count | None = None  # side in pixels of a view, and of the middle that is scored; null: the whole image
    train_classes: Count | None = None  # of a folder: the first this many classes by name train, the others are test
    labels: str | None = (
        None  # of a folder: folders or none; of hf: a column or none; null: where only one reading fits
    )
    image: str | None = None  # which of several images: a column of hf, the end of a name of webdataset
    images: Count | None = None  # train on this many images alone; null: on all
    held_out: Count | None = None  # keep this many images from training, for score monitor and for test: held_out
    batch_size: Annotated[int, Field(ge=2, lt=2**31)]  # images of a step, all processes together
    per_class: Count | None = None  # images of each class in a batch, by label; null: an epoch has each image once
    views: Annotated[int, Field(ge=1, le=100)] = 2  # of each image of a batch; self-supervised pretraining takes two
    fixed_views: Count | None = None  # versions of each view, one an epoch, over and over; null: a new one each epoch
    augment: Augment  # how views are made; the name of a preset alone is short for {preset: name}

    @rule
    def _only_files_have_an_image_size(self) -> Iterator[str]:
        if self.is_of_files and self.image_size is None:
            yield f"dataset {self.dataset} needs image_size, the side in pixels to which its images are brought"
        if not self.is_of_files and self.image_size is not None:
            yield f"the images of {self.dataset} have their size: leave out image_size"

    @rule
    def _only_what_was_checked_is_skipped(self) -> Iterator[str]:
        if self.unchecked and self.on_error == "skip":
            yield "on_error: skip needs to know which images are broken before the first step: leave out unchecked"
        if self.unchecked and not self.is_of_files:
            yield f"{self.dataset} is always held in memory: leave out unchecked"

    @rule
    def _only_shards_have_an_address(self) -> Iterator[str]:
        if is_address(self.root) and self.dataset != "webdataset":
            yield f"root {self.root} is an address, which is for dataset webdataset alone: give a folder"

    @rule
    def _only_files_are_decoded_as_needed(self) -> Iterator[str]:
        if self.resident is False and not self.is_of_files:
            yield f"{self.dataset} is always held in memory: leave out resident"

    @rule
    def _a_view_is_no_larger_than_the_image(self) -> Iterator[str]:
        if self.crop_size is None:
            return
        if self.image_size is not None and self.crop_size > self.image_size:
            yield f"crop_size is {self.crop_size} but image_size only {self.image_size}"
        if self.crop_size > (own := _SIDES.get(self.dataset, self.crop_size)):
            yield f"crop_size is {self.crop_size} but images of {self.dataset} are only {own} pixels wide"

    @rule
    def _only_folders_divide_their_classes(self) -> Iterator[str]:
        if self.train_classes is not None and self.dataset != "folder":
            yield f"train_classes is for dataset folder: {self.dataset} has a split of its own"

    @rule
    def _a_batch_has_whole_classes(self) -> Iterator[str]:
        if self.per_class is not None and self.batch_size % self.per_class:
            yield f"batch_size {self.batch_size} is not a multiple of per_class {self.per_class}"

    @rule
    def _what_is_tested_was_held_out(self) -> Iterator[str]:
        if self.test == HELD_OUT and self.held_out is None and not self.is_of_files:
            yield f"test is {HELD_OUT}: say with held_out how many images of {self.splits['training']}"

    @property
    def title(self) -> str:
        """What a person calls the images: the name of the data set, or of the folder where it is one's own."""
        return (self.dataset in ("folder", "hf", "webdataset") and Path(self.root).name) or self.dataset

    @property
    def is_of_files(self) -> bool:
        """Whether its images are files, of any size."""
        return self.dataset in get_args(Decoded)

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
