from dataclasses import replace

import pytest
import torch

from ssl_transfer.features import tokens as module
from ssl_transfer.features.model_features import features_of
from ssl_transfer.features.tokens import split_tokens
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.backbones import create_backbone
from tests.scores.subjects import subject


@pytest.mark.parametrize("name", ["cifar_resnet8", "vit_tiny_patch16_224"])
def test_tokens_are_the_places_of_the_last_map(name, digits):
    """Patches of a transformer, without its class token, and places of a convolutional network's map."""
    torch.manual_seed(0)
    size = 32 if name.startswith("vit") else 8
    backbone = create_backbone(name, in_chans=1, image_size=size, mean=(0.3,), std=(0.4,))
    splits = [images.subset(torch.arange(130)) for images in digits]
    features = features_of("student", EmbeddingModel(backbone), splits)
    train, test = split_tokens(features)
    pixels = splits[1].pixels[:5].float() / 255
    with torch.no_grad():
        last = backbone.network.forward_intermediates(backbone.prepare(pixels), intermediates_only=True)[-1]
    assert train.dtype == torch.float16 and len(train) == len(test) == 130
    torch.testing.assert_close(test[:5].float(), last.flatten(2).mT, rtol=2e-3, atol=2e-3)


def test_a_table_and_a_network_without_maps_are_refused():
    with pytest.raises(ValueError, match="x.npz is a table of features; an attentive probe needs the network"):
        split_tokens(replace(subject("x.npz", 0), network=None))
    with pytest.raises(ValueError, match="flat gives no feature maps"):
        split_tokens(replace(subject("flat", 0), network=torch.nn.Flatten()))


def test_tokens_that_do_not_fit_are_refused_before_they_are_computed(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="the tokens of 120 images of clouds by small take .* GiB"):
        split_tokens(subject("small", 0))
