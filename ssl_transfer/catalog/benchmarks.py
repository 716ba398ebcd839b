"""The data sets of transfer benchmarks: their splits, metric, licence, and how to get each; and the suites of them."""

from dataclasses import dataclass
from typing import Literal

Measure = Literal["top-1", "mean per class", "11-point mAP"]


@dataclass(frozen=True)
class Benchmark:
    """A data set, as published.

    ``train``, ``val`` and ``test`` are numbers of images; without a ``val`` split none is predefined. ``licence`` is
    what its publishers say of its use on ``page``, or that no such statement was found. ``get`` is how to have it below
    the folder that is searched. ``drawn`` says which splits are taken where that is not all that is published.
    """

    title: str
    classes: int
    train: int
    val: int
    test: int
    measure: Measure
    licence: str
    page: str
    get: str
    drawn: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits."""
        return ("train", "val", "test") if self.val else ("train", "test")


_FETCH = "unpack the published archive as {}, or let torchvision download it with --download"


def _by_torchvision(folder: str) -> str:
    return _FETCH.format(folder)


def _saved(name: str, archive: str = "") -> str:
    own = f"put a copy of it from Hugging Face's hub into {name}/, as Parquet files or as save_to_disk writes it"
    return own + (f", or unpack the published archive as {archive}" if archive else "")


BENCHMARKS: dict[str, Benchmark] = {
    "aircraft": Benchmark(
        "FGVC-Aircraft, variants",
        *(100, 3_334, 3_333, 3_333, "mean per class"),
        "non-commercial research only",
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        _by_torchvision("fgvc-aircraft-2013b/"),
    ),
    "caltech101": Benchmark(
        "Caltech-101 with its background",
        *(102, 3_060, 0, 6_084, "mean per class"),
        "CC BY 4.0",
        "https://data.caltech.edu/records/mzrjq-6wc02",
        _by_torchvision("caltech101/101_ObjectCategories/"),
        drawn="30 images of each class drawn for training, the others for testing",
    ),
    "cifar10": Benchmark(
        "CIFAR-10",
        *(10, 50_000, 0, 10_000, "top-1"),
        "not found stated; asks for a citation",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        _by_torchvision("cifar-10-batches-py/"),
    ),
    "cifar100": Benchmark(
        "CIFAR-100",
        *(100, 50_000, 0, 10_000, "top-1"),
        "not found stated; asks for a citation",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        _by_torchvision("cifar-100-python/"),
    ),
    "cub200": Benchmark(
        "CUB-200-2011",
        *(200, 5_994, 0, 5_794, "top-1"),
        "not found stated",
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        _saved("cub200", "CUB_200_2011/"),
    ),
    "digits": Benchmark(
        "scikit-learn's digits",
        *(10, 1_442, 0, 355, "top-1"),
        "CC BY 4.0",
        "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        "scikit-learn brings it",
        drawn="every fifth image of each class for testing",
    ),
    "dtd": Benchmark(
        "Describable Textures, first split",
        *(47, 1_880, 1_880, 1_880, "top-1"),
        "for research purposes",
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        _by_torchvision("dtd/dtd/"),
    ),
    "eurosat": Benchmark(
        "EuroSAT, RGB",
        *(10, 21_600, 0, 5_400, "top-1"),
        "MIT, of its repository",
        "https://github.com/phelber/EuroSAT",
        _by_torchvision("eurosat/2750/"),
        drawn="a fifth of each class drawn for testing",
    ),
    "flowers102": Benchmark(
        "Oxford 102 Flowers",
        *(102, 1_020, 1_020, 6_149, "mean per class"),
        "not found stated",
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        _by_torchvision("flowers-102/"),
    ),
    "food101": Benchmark(
        "Food-101",
        *(101, 75_750, 0, 25_250, "top-1"),
        "scientific fair use; more by agreement with the photos' owners",
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        _by_torchvision("food-101/"),
    ),
    "gtsrb": Benchmark(
        "German Traffic Signs",
        *(43, 26_640, 0, 12_630, "top-1"),
        "free to use; asks for a citation",
        "https://benchmark.ini.rub.de/gtsrb_dataset.html",
        _by_torchvision("gtsrb/"),
        drawn="torchvision's, with 26,640 of the 39,209 published training images",
    ),
    "pcam": Benchmark(
        "PatchCamelyon",
        *(2, 262_144, 32_768, 32_768, "top-1"),
        "CC0",
        "https://github.com/basveeling/pcam",
        _saved("pcam"),
    ),
    "pets": Benchmark(
        "Oxford-IIIT Pets",
        *(37, 3_680, 0, 3_669, "mean per class"),
        "CC BY-SA 4.0; photos remain their owners'",
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        _by_torchvision("oxford-iiit-pet/"),
    ),
    "resisc45": Benchmark(
        "NWPU-RESISC45",
        *(45, 18_900, 6_300, 6_300, "top-1"),
        "not found stated",
        "https://arxiv.org/abs/1703.00121",
        _saved("resisc45"),
        drawn="those of the copy that is read, since none are published",
    ),
    "stanford_cars": Benchmark(
        "Stanford Cars",
        *(196, 8_144, 0, 8_041, "top-1"),
        "not found stated",
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        _saved("stanford_cars", "stanford_cars/"),
    ),
    "stl10": Benchmark(
        "STL-10",
        *(10, 5_000, 0, 8_000, "top-1"),
        "not found stated; images from ImageNet",
        "https://cs.stanford.edu/~acoates/stl10/",
        _by_torchvision("stl10_binary/"),
    ),
    "sun397": Benchmark(
        "SUN397, first partition",
        *(397, 19_850, 0, 19_850, "top-1"),
        "research purposes only",
        "https://vision.princeton.edu/projects/2010/SUN/",
        "unpack the published archives as SUN397/, with Training_01.txt and Testing_01.txt of Partitions.zip in it",
    ),
    "svhn": Benchmark(
        "SVHN, cropped digits",
        *(10, 73_257, 0, 26_032, "top-1"),
        "non-commercial use only",
        "http://ufldl.stanford.edu/housenumbers/",
        _by_torchvision("train_32x32.mat and test_32x32.mat"),
    ),
    "voc2007": Benchmark(
        "PASCAL VOC 2007",
        *(20, 2_501, 2_510, 4_952, "11-point mAP"),
        "not found stated; photos from Flickr",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
        _by_torchvision("VOCdevkit/VOC2007/"),
    ),
}

_KORNBLITH = (
    *("aircraft", "caltech101", "stanford_cars", "cifar10", "cifar100", "dtd", "flowers102", "food101", "pets"),
    *("sun397", "voc2007"),
)
SUITES: dict[str, tuple[str, ...]] = {
    "small": ("digits", "cifar10", "cifar100", "stl10", "svhn"),
    "kornblith": _KORNBLITH,
    "dinov2": (*_KORNBLITH, "cub200"),
}
