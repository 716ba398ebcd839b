"""Features of a layer, computed once, with the protocol of their making."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssl_transfer.features import extraction as features
from ssl_transfer.features.extraction import compute_features
from ssl_transfer.features.model_features import features_of
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.heads import EmbeddingHead
from ssl_transfer.probes import extract_features
from ssl_transfer.scores.agreement import Agreement
from ssl_transfer.scores.base import Measuring
from ssl_transfer.scores.knn import KNN


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """Of how many images features were computed, each time that they were."""
    found: list[int] = []

    def counting(network, pixels, **options):
        found.append(len(pixels))
        return extract_features(network, pixels, **options)

    monkeypatch.setattr(features, "extract_features", counting)
    return found


def test_features_do_not_depend_on_the_batch_they_are_computed_in(model, digits):
    whole = compute_features(model, digits[1])
    alone = compute_features(model, digits[1].subset(torch.tensor([7])))
    torch.testing.assert_close(whole[7:8], alone, rtol=1e-5, atol=1e-6)


def test_the_network_of_features_is_without_the_head_that_they_come_before(model):
    with_head = EmbeddingModel(model.backbone, EmbeddingHead(model.num_features, embedding_dim=5))
    assert features.layer_of(with_head, "features").state_dict().keys() == model.backbone.state_dict().keys()


def test_features_are_kept_and_computed_again_only_where_something_differs(model, digits, computed, tmp_path):
    first = features_of("student", model, digits, cache=tmp_path)
    again = features_of("student", model, digits, cache=tmp_path)
    assert sum(computed) == sum(map(len, digits))
    assert torch.equal(first.features.train_x, again.features.train_x)
    assert torch.equal(first.features.test_x, again.features.test_x)

    features_of("student", model, digits, layer="output", cache=tmp_path)
    fewer = [digits[0].subset(torch.arange(50)), digits[1]]
    features_of("student", model, fewer, cache=tmp_path)
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    changed = features_of("student", model, digits, cache=tmp_path)
    assert sum(computed) == 3 * sum(map(len, digits)) + 50
    assert not torch.equal(changed.features.test_x, first.features.test_x)

    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    conv.padding_mode = "reflect"  # the same weights of another network
    adapted = features_of("student", model, digits, cache=tmp_path)
    assert not torch.equal(adapted.features.test_x, changed.features.test_x)


def test_a_network_whose_features_were_kept_is_where_the_images_are_as_if_they_were_not(
    model, digits, tmp_path, monkeypatch
):
    """On a GPU, fine-tuning a network that stayed on the CPU would fail."""
    features_of("student", copy.deepcopy(model), digits, cache=tmp_path)
    moved, move = [], torch.nn.Module.to

    def noting(module, *given, **options):
        moved.append((module, *given))
        return move(module, *given, **options)

    monkeypatch.setattr(torch.nn.Module, "to", noting)
    monkeypatch.setattr(features, "extract_features", None)  # everything is read
    network = features_of("student", model, digits, cache=tmp_path).network
    assert (network, digits[0].pixels.device) in moved
    kernels = [weight for weight in network.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    assert kernels and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


def test_every_layer_has_its_name_and_width(model, digits):
    stage = features_of("student", model, digits, layer="stages.0")
    features = features_of("student", model, digits)
    assert stage.protocol["layer"] == "stages.0" and stage.protocol["width"] < features.protocol["width"]
    last = features_of("student", model, digits, layer="stages.2")
    torch.testing.assert_close(last.features.test_x, features.features.test_x)
    with pytest.raises(ValueError, match="the model gives features"):
        features_of("student", model, digits, layer="projection")


def test_a_model_whose_features_are_not_finite_is_named(model, digits):
    with torch.no_grad():
        list(model.parameters())[-1].fill_(torch.nan)
    with pytest.raises(ValueError, match=r"student \(small\) on digits train has 1442 of 1442 rows .* not finite"):
        features_of("student (small)", model, digits, layer="output")


def test_images_without_labels_can_be_compared_but_not_classified(model, digits):
    unlabeled = [replace(images, labels=None) for images in digits]
    subject = features_of("student", model, unlabeled)
    assert Agreement(k=5).measure(subject, Measuring(teachers=[subject]))[0].value == 1
    with pytest.raises(ValueError, match="train_y has 1442 of 1442 labels missing"):
        KNN(k=[5]).measure(subject, Measuring())


def test_features_of_training_images_that_nothing_looks_at_are_not_computed(model, digits, computed):
    alone = features_of("student", model, digits, train_features=False)
    assert computed == [len(digits[1])] and len(alone.features.train_x) == 0
    whole = features_of("student", model, digits)
    assert alone.protocol == whole.protocol and torch.equal(alone.features.test_x, whole.features.test_x)
