"""Published numbers of transfer losses, to stand beside our own: data, and where each was printed.

A number stands beside ours only where data set, teacher (and how it was made), student, method and metric have the same
names (:func:`find`). It was taken by its authors' schedule and code, which ours need not be: the source says whose.
Methods have the names of our ``task.kind``; a network trained by itself has no teacher.
"""

from collections.abc import Iterator
from dataclasses import dataclass

Teacher = tuple[str, str]  # which network, and the method that made it
_Key = tuple[str, Teacher | None, str, str, str]
_Rows = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Published:
    """One printed number, as a fraction, and where it was printed."""

    value: float
    source: str


def network(backbone: str, embedding_dim: int | None = None) -> str:
    """What a network is called here: its backbone, and the width of its embedding where it has one."""
    return backbone if embedding_dim is None else f"{backbone}-{embedding_dim}"


def find(dataset: str, teacher: Teacher | None, student: str, method: str, metric: str) -> Published | None:
    """The number printed for exactly this setting, if there is one; networks are named by :func:`network`."""
    return _NUMBERS.get((dataset, teacher, student, method, metric))


# Recall@1 in % on CUB-200-2011, Cars-196 and Stanford Online Products, Euclidean on embeddings as they are. Taken as
# the first of these columns is; the second, of the last epoch, is what else it will be held against.
_RETRIEVAL_METRICS = ("R@1 best-on-test", "R@1 L2 output")
_RETRIEVAL_SOURCE = "Kim et al., CVPR 2021: README of the authors' code, which keeps the best epoch on the test split"
_RETRIEVAL_DATASETS = ("cub", "cars", "sop")
_RETRIEVAL_MAKER = "metric proxy_anchor"
_WITH_LABELS = ("fitnet", "attention_transfer", "crd")  # in the authors' code: added to Proxy-Anchor
_RETRIEVAL_TEACHERS = {
    "bn_inception-512": (69.1, 86.4, 79.2),
    "resnet50-512": (69.9, 87.7, 80.5),
}
_RETRIEVAL_PAIRS = (
    ("bn_inception-512", "bn_inception-512"),
    ("bn_inception-512", "bn_inception-64"),
    ("resnet50-512", "resnet18-128"),
)
_RETRIEVAL = {
    "fitnet": ((69.9, 87.6, 78.7), (62.3, 81.2, 76.6), (61.0, 78.5, 76.7)),
    "attention_transfer": ((66.3, 84.7, 78.2), (58.3, 79.2, 76.3), (61.0, 78.6, 76.4)),
    "crd": ((67.7, 85.3, 78.1), (60.9, 79.2, 75.5), (62.8, 80.6, 76.2)),
    "dark_rank": ((66.7, 84.0, 75.7), (63.5, 78.1, 73.9), (61.2, 75.3, 72.7)),
    "pkt": ((69.1, 86.4, 78.4), (63.6, 82.2, 74.6), (65.0, 81.6, 76.9)),
    "rkd": ((70.9, 88.9, 78.5), (65.8, 83.7, 70.2), (65.8, 84.2, 75.7)),
    "relaxed_contrastive": ((72.1, 89.6, 79.8), (67.4, 86.5, 76.3), (66.6, 86.0, 78.4)),
}

# Top-1 in % on CIFAR-100; each transfer loss is added to cross entropy.
_CIFAR_METRIC = "top-1"
_CIFAR_SOURCE = "Tian et al., ICLR 2020: README of RepDistiller, which keeps the best of 240 epochs on the test split"
_CIFAR_MAKER = "classify"
_CIFAR_ALONE = {
    "cifar_wrn40_2": 75.61,
    "cifar_wrn16_2": 73.26,
    "cifar_wrn40_1": 71.98,
    "cifar_resnet56": 72.34,
    "cifar_resnet110": 74.31,
    "cifar_resnet20": 69.06,
    "cifar_resnet32": 71.14,
    "cifar_resnet32x4": 79.42,
    "cifar_resnet8x4": 72.50,
    "cifar_vgg13": 74.64,
    "cifar_vgg8": 70.36,
    "cifar_mobilenetv2_half": 64.60,
    "cifar_shufflenet_v1": 70.50,
    "cifar_shufflenet_v2": 71.82,
}
_CIFAR_PAIRS = (
    ("cifar_wrn40_2", "cifar_wrn16_2"),
    ("cifar_wrn40_2", "cifar_wrn40_1"),
    ("cifar_resnet56", "cifar_resnet20"),
    ("cifar_resnet110", "cifar_resnet20"),
    ("cifar_resnet110", "cifar_resnet32"),
    ("cifar_resnet32x4", "cifar_resnet8x4"),
    ("cifar_vgg13", "cifar_vgg8"),
)
_CIFAR: _Rows = {
    "soft_targets": (74.92, 73.54, 70.66, 70.67, 73.08, 73.33, 72.98),
    "fitnet": (73.58, 72.24, 69.21, 68.99, 71.06, 73.50, 71.02),
    "attention_transfer": (74.08, 72.77, 70.55, 70.22, 72.31, 73.44, 71.43),
    "similarity_preserving": (73.83, 72.43, 69.67, 70.04, 72.69, 72.94, 72.68),
    "correlation_congruence": (73.56, 72.21, 69.63, 69.48, 71.48, 72.97, 70.71),
    "vid": (74.11, 73.30, 70.38, 70.16, 72.61, 73.09, 71.23),
    "rkd": (73.35, 72.22, 69.61, 69.25, 71.82, 71.90, 71.48),
    "pkt": (74.54, 73.45, 70.34, 70.25, 72.61, 73.64, 72.88),
    "crd": (75.48, 74.14, 71.16, 71.46, 73.48, 75.51, 73.94),
}
_CIFAR_CROSS_PAIRS = (
    ("cifar_vgg13", "cifar_mobilenetv2_half"),
    ("cifar_resnet50", "cifar_mobilenetv2_half"),
    ("cifar_resnet50", "cifar_vgg8"),
    ("cifar_resnet32x4", "cifar_shufflenet_v1"),
    ("cifar_resnet32x4", "cifar_shufflenet_v2"),
    ("cifar_wrn40_2", "cifar_shufflenet_v1"),
)
_CIFAR_CROSS: _Rows = {
    "soft_targets": (67.37, 67.35, 73.81, 74.07, 74.45, 74.83),
    "similarity_preserving": (66.30, 68.08, 73.34, 73.48, 74.56, 74.52),
    "rkd": (64.52, 64.43, 71.50, 72.28, 73.21, 72.21),
    "pkt": (67.13, 66.52, 73.01, 74.10, 74.69, 73.89),
    "crd": (69.73, 69.11, 74.30, 75.11, 75.65, 76.05),
}


def _numbers() -> Iterator[tuple[_Key, Published]]:
    key: _Key
    for metric in _RETRIEVAL_METRICS:
        for teacher, row in _RETRIEVAL_TEACHERS.items():
            for dataset, percent in zip(_RETRIEVAL_DATASETS, row, strict=True):
                key = (dataset, None, teacher, _RETRIEVAL_MAKER, metric)
                yield key, Published(percent / 100, _RETRIEVAL_SOURCE)
        for method, settings in _RETRIEVAL.items():
            source = _RETRIEVAL_SOURCE + ("; there with Proxy-Anchor's labels" if method in _WITH_LABELS else "")
            for (teacher, student), row in zip(_RETRIEVAL_PAIRS, settings, strict=True):
                for dataset, percent in zip(_RETRIEVAL_DATASETS, row, strict=True):
                    key = (dataset, (teacher, _RETRIEVAL_MAKER), student, method, metric)
                    yield key, Published(percent / 100, source)
    for alone, percent in _CIFAR_ALONE.items():
        yield ("cifar100", None, alone, _CIFAR_MAKER, _CIFAR_METRIC), Published(percent / 100, _CIFAR_SOURCE)
    for pairs, rows in zip((_CIFAR_PAIRS, _CIFAR_CROSS_PAIRS), (_CIFAR, _CIFAR_CROSS), strict=True):
        for method, values in rows.items():
            for (teacher, student), percent in zip(pairs, values, strict=True):
                key = ("cifar100", (teacher, _CIFAR_MAKER), student, method, _CIFAR_METRIC)
                yield key, Published(percent / 100, _CIFAR_SOURCE)


_NUMBERS = dict(_numbers())
