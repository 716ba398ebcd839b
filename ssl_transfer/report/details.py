"""``details.json`` of a run folder: what the page shows of single images, and of the models themselves.

It is taken when a run is scored, from features that scoring has computed anyway, so that the page can be made again
from the folder alone. Labels are used to color and to count, never to choose.
"""

import io
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from ssl_transfer.files import write_json
from ssl_transfer.report.rendering import data_url
from ssl_transfer.section import reason

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_transfer.data import Images
    from ssl_transfer.features.model_features import ModelFeatures

    Predicted = Mapping[str, Mapping[str, Tensor]]  # model -> column of a linear probe -> class of each test image

NAME = "details.json"
log = logging.getLogger(__name__)

SAMPLE = 2000  # test images among which neighbors are searched and mistakes counted
MAPPED = 500  # of them, on the map
QUERIES, SHOWN = 8, 5  # images whose neighbors are shown, and how many of these
THUMBNAIL = 64  # pixels
VOTES = 20  # neighbors that vote for a class
TIMED_BATCH, TIMED_SECONDS = 64, 0.5


@dataclass(frozen=True)
class Size:
    """What a backbone costs: weights, multiply-accumulates for an image, and images in a second where it was scored."""

    weights: int
    macs: int
    images_per_second: float
    device: str


@dataclass(frozen=True)
class Query:
    """A test image and its nearest others by each model, as rows of the test split; ``shared`` by all models."""

    row: int
    neighbors: dict[str, list[int]]
    shared: int


@dataclass(frozen=True)
class Details:
    """What the page shows beside the scores; empty where scoring had nothing to take it from.

    ``positions`` has the places of the test images ``mapped`` on each model's map, ``queries`` those whose neighbors
    the models agree on least of the images of the ``sample``. ``labels`` and ``thumbnails`` are of the rows that are
    named. ``confusion`` counts, for each model, test images by their class and by the one that ``confused_by`` gives
    them: the linear probe of that column, or, where that is empty, the nearest training images those of the sample.
    """

    sizes: dict[str, Size] = field(default_factory=dict)
    mapped: list[int] = field(default_factory=list)
    positions: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    queries: list[Query] = field(default_factory=list)
    labels: dict[int, int] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    thumbnails: dict[int, str] = field(default_factory=dict)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    confused_by: str = ""
    sample: int = 0

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where classes have no names."""
        return self.class_names[number] if number < len(self.class_names) else str(number)


_DETAILS = TypeAdapter(Details)


def read_details(folder: Path) -> Details:
    """Those of the run in ``folder``; empty if none were taken, and, with a warning, if they are damaged."""
    path = folder / NAME
    try:
        return _DETAILS.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return Details()
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s); ssl-transfer score %s writes it again", path, reason(error), folder)
        return Details()


def write_details(
    folder: Path, models: "Mapping[str, ModelFeatures]", predicted: "Predicted" = MappingProxyType({}), *, seed: int
) -> None:
    """Take the details of ``models``, by their names in the tables, on one process, and write them into ``folder``."""
    write_json(folder / NAME, asdict(take_details(models, predicted, seed=seed)))


def take_details(
    models: "Mapping[str, ModelFeatures]", predicted: "Predicted" = MappingProxyType({}), *, seed: int
) -> Details:
    """The details of models whose features are of the same images; ``seed`` draws the images and starts the maps.

    ``predicted`` has the class of every test image by model and by the column of a linear probe, if one was scored.
    """
    from ssl_transfer.probes.splits import shuffled

    first = next(iter(models.values()))
    assert first.images is not None
    test = first.images[1]
    sample = shuffled(len(test), seed, len(test))[:SAMPLE]
    features = {name: model.features.test_x[sample.to(model.features.test_x.device)] for name, model in models.items()}
    mapped = sample[:MAPPED]
    queries = _queries(features, sample)
    rows = sorted({row for query in queries for near in query.neighbors.values() for row in [query.row, *near]})
    confused_by, confusion = _confusion(models, predicted, features, sample, test)
    return Details(
        sizes={name: size_of(model.network, test) for name, model in models.items() if model.network is not None},
        mapped=mapped.tolist(),
        positions=_positions({name: x[: len(mapped)] for name, x in features.items()}, seed),
        queries=queries,
        labels={} if test.labels is None else {row: int(test.labels[row]) for row in {*rows, *mapped.tolist()}},
        class_names=list(test.class_names or ()),
        thumbnails=_thumbnails(test, rows),
        confusion=confusion,
        confused_by=confused_by,
        sample=len(sample),
    )


def _positions(features: "Mapping[str, Tensor]", seed: int) -> dict[str, list[tuple[float, float]]]:
    """Places on each model's map, in [0, 1]; later maps are turned to lie like the first."""
    import numpy as np

    from ssl_transfer.features.flat import flat, turned

    found: dict[str, list[tuple[float, float]]] = {}
    first: np.ndarray | None = None
    for name, x in features.items():
        if len(x) < 4 or bool((x == x[:1]).all()):  # too few to have neighborhoods, or all the same
            found[name] = [(0.5, 0.5)] * len(x)
            continue
        places = flat(x.cpu().numpy(), "tsne", seed=seed % 2**32)
        places, first = (places, places) if first is None else (turned(places, first), first)
        places = (places - places.min(axis=0)) / np.ptp(places, axis=0).clip(min=1e-12)
        found[name] = [(round(float(a), 4), round(float(b), 4)) for a, b in places]
    return found


def _queries(features: "Mapping[str, Tensor]", sample: "Tensor") -> list[Query]:
    """The images of the sample whose nearest others the models have fewest of in common."""
    from ssl_transfer.probes import nearest

    count = min(SHOWN, len(sample) - 1)
    if count < 1:
        return []
    found = {
        name: [row for part in nearest(x, x, count, exclude_self=True) for row in part.index.tolist()]
        for name, x in features.items()
    }
    shared = [len(set.intersection(*map(set, near))) for near in zip(*found.values(), strict=True)]
    order = sorted(range(len(sample)), key=lambda i: shared[i])  # of equals, the first that were drawn
    row = sample.tolist()
    return [
        Query(row[i], {name: [row[j] for j in near[i]] for name, near in found.items()}, shared[i])
        for i in order[:QUERIES]
    ]


def _thumbnails(images: "Images", rows: list[int]) -> dict[int, str]:
    """Images as data URIs of PNG, at most :data:`THUMBNAIL` pixels high and wide."""
    import torch
    from torchvision.transforms.v2.functional import to_pil_image

    if not rows:
        return {}
    chosen = images.subset(torch.tensor(rows))
    pictures = (picture for part in chosen.parts(slice(len(rows))) for picture in part.cpu())
    found = {}
    for row, pixels in zip(rows, pictures, strict=True):
        picture = to_pil_image(pixels)
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        picture.save(file, format="PNG")
        found[row] = data_url(file.getvalue(), "png")
    return found


def _confusion(
    models: "Mapping[str, ModelFeatures]",
    predicted: "Predicted",
    features: "Mapping[str, Tensor]",
    sample: "Tensor",
    test: "Images",
) -> tuple[str, dict[str, list[list[int]]]]:
    """Where a linear probe puts the test images, and its column; without one, where neighbors put the sample.

    Nothing without labels or features of training images.
    """
    import torch

    from ssl_transfer.probes import knn_predict

    if test.labels is None or test.classes is None:
        return "", {}
    probe = next((column for column in predicted.get(next(iter(models)), {})), "")
    found = {}
    for name, model in models.items():
        train_x, train_y = model.features.train_x, model.features.train_y
        if not len(train_x) or train_y.min() < 0:
            return "", {}
        if probe:
            labels, given = test.labels.cpu(), predicted[name][probe].cpu()
        else:
            labels = test.labels[sample.to(test.labels.device)].cpu()
            given = knn_predict(train_x, train_y, features[name], k=min(VOTES, len(train_x))).cpu()
        classes = max(test.classes, int(train_y.max()) + 1)
        counts = torch.bincount(labels * classes + given, minlength=classes**2)
        found[name] = counts.view(classes, classes).tolist()
    return probe, found


def size_of(network: "nn.Module", images: "Images") -> Size:
    """What it takes to make features: timed in float32, in batches, on the device where the features were made."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = images.pixels.device
    pixels = next(images.subset(torch.arange(min(TIMED_BATCH, len(images)))).parts(slice(TIMED_BATCH))).to(device)
    batch = (pixels.float() / 255).to(memory_format=torch.channels_last)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            network(batch[:1])
        seconds: list[float] = []
        while sum(seconds) < TIMED_SECONDS:
            wait()
            start = time.perf_counter()
            network(batch)
            wait()
            seconds.append(time.perf_counter() - start)
    threads = torch.get_num_threads()
    on_cpu = f"{threads} CPU {'thread' if threads == 1 else 'threads'}"
    return Size(
        weights=sum(weight.numel() for weight in network.parameters()),
        macs=counter.get_total_flops() // 2,
        images_per_second=len(batch) / median(seconds),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else on_cpu,
    )
