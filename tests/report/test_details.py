"""Maps, neighbors, mistakes and sizes: what the page shows beside the scores, against counts made by hand."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from ssl_transfer.data import Images
from ssl_transfer.features.model_features import ModelFeatures
from ssl_transfer.probes import Features
from ssl_transfer.report import details
from ssl_transfer.report.details import read_details, take_details, write_details

N, CLASSES = 60, 3


def images(split: str, labels: torch.Tensor | None) -> Images:
    pixels = torch.randint(
        0, 256, (N, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(len(split))
    )
    names = ("ant", "bee", "cat")
    return Images(pixels, labels, CLASSES, "made", split, (0.5,) * 3, (0.5,) * 3, class_names=names)


@pytest.fixture
def models() -> dict[str, ModelFeatures]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (N,), generator=generator)
    splits = images("train", labels), images("test", labels.flip(0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 12, 5, bias=False))
    found = {}
    for name, noise in (("teacher", 0.5), ("student", 1.0)):
        train, test = (
            nn.functional.one_hot(split.labels, 4) + noise * torch.randn(N, 4, generator=generator) for split in splits
        )
        table = Features(train, splits[0].labels, test, splits[1].labels)
        found[name] = ModelFeatures(name, table, {}, network=network, images=splits)
    return found


def test_mistakes_are_counted_as_scikit_learn_counts_them(models, monkeypatch):
    monkeypatch.setattr(details, "VOTES", 1)
    found = take_details(models, seed=0)
    for name, model in models.items():
        x = model.features
        by_cosine = KNeighborsClassifier(1, metric="cosine").fit(x.train_x, x.train_y).predict(x.test_x)
        assert found.confusion[name] == confusion_matrix(x.test_y, by_cosine, labels=range(CLASSES)).tolist()


def test_mistakes_are_those_of_the_linear_probe_where_one_was_scored(models):
    labels = models["teacher"].features.test_y
    given = {name: labels.roll(shift) for shift, name in enumerate(models)}
    found = take_details(
        models, {name: {"linear": classes, "linear sgd": labels} for name, classes in given.items()}, seed=0
    )
    assert found.confused_by == "linear"
    for name, classes in given.items():
        assert found.confusion[name] == confusion_matrix(labels, classes, labels=range(CLASSES)).tolist()


def test_neighbors_are_the_nearest_by_cosine_and_disagreements_come_first(models):
    found = take_details(models, seed=0)
    near = {}
    for name, model in models.items():
        rows = nn.functional.normalize(model.features.test_x.double(), dim=1)
        near[name] = (rows @ rows.T - 9 * torch.eye(N)).argsort(dim=1, descending=True)[:, : details.SHOWN]
    shared = [len({*near["teacher"][i].tolist()} & {*near["student"][i].tolist()}) for i in range(N)]
    assert [query.shared for query in found.queries] == sorted(shared)[: details.QUERIES]
    for query in found.queries:
        assert query.shared == shared[query.row]
        assert query.neighbors == {name: near[name][query.row].tolist() for name in models}
        for row in (query.row, *query.neighbors["student"]):
            assert found.labels[row] == models["student"].features.test_y[row]


def test_thumbnails_are_the_images(models):
    found = take_details(models, seed=0)
    test = models["student"].images[1]
    assert found.thumbnails.keys() >= {query.row for query in found.queries}
    for row, uri in found.thumbnails.items():
        picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(picture), test.pixels[row].permute(1, 2, 0).numpy())


def test_sizes_are_those_of_the_network(models):
    size = take_details(models, seed=0).sizes["student"]
    assert size.weights == size.macs == 3 * 8 * 12 * 5 and size.images_per_second > 0


def models_of(test_x: torch.Tensor) -> dict[str, ModelFeatures]:
    n = len(test_x)
    split = images("test", None).subset(torch.arange(n))
    table = Features(test_x[:0], torch.zeros(0, dtype=torch.long), test_x, torch.full((n,), -1))
    return {name: ModelFeatures(name, table, {}, images=(split, split)) for name in ("teacher", "student")}


def test_a_map_keeps_groups_together_and_two_of_the_same_features_lie_alike():
    generator = torch.Generator().manual_seed(0)
    centers = nn.functional.normalize(torch.randn(3, 16, generator=generator), dim=1)
    group = torch.arange(N) % 3
    x = centers[group] + 0.05 * torch.randn(N, 16, generator=generator)
    found = take_details(models_of(x), seed=1)
    places = np.array(found.positions["teacher"])
    assert places.min() == 0 and places.max() == 1
    groups = group[found.mapped]
    by_place = KNeighborsClassifier(1).fit(places[: N // 2], groups[: N // 2]).predict(places[N // 2 :])
    assert (by_place == groups[N // 2 :].numpy()).all()
    np.testing.assert_allclose(found.positions["student"], places, atol=0.01)


@pytest.mark.parametrize("rows", [1, 3, 5])
@pytest.mark.parametrize("collapsed", [False, True])
def test_a_map_of_few_or_equal_rows_has_a_place_for_each(rows, collapsed):
    found = take_details(models_of(torch.ones(rows, 5) if collapsed else torch.eye(5)[:rows]), seed=0)
    for places in found.positions.values():
        assert len(places) == rows and all(0 <= value <= 1 for place in places for value in place)


def test_details_without_labels_are_read_back_as_they_were_written(models, tmp_path):
    bare = {}
    for name, model in models.items():
        splits = tuple(images(split.split, None) for split in model.images)
        none = torch.full((N,), -1)
        table = Features(model.features.train_x, none, model.features.test_x, none)
        bare[name] = ModelFeatures(name, table, {}, network=model.network, images=splits)
    write_details(tmp_path, bare, seed=3)
    found = read_details(tmp_path)
    assert (
        found.confusion == {}
        and found.confused_by == ""
        and found.labels == {}
        and len(found.queries) == details.QUERIES
    )
    again = take_details(bare, seed=3)
    assert (found.positions, found.queries, found.thumbnails) == (again.positions, again.queries, again.thumbnails)
