"""Pooling by average and maximum, the head that metric learning puts on it, and both from disk."""

import pytest
import torch

from ssl_transfer.models import create_backbone
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model, load_model, save_model

RGB = dict(image_size=48, mean=(0.5,) * 3, std=(0.2,) * 3)


def spec(backbone: str, pooling: str | None) -> ModelSpec:
    return ModelSpec(backbone, "default", in_chans=3, pooling=pooling, head=HeadSpec("embedding", 7), **RGB)


@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet8", "mobilenetv3_small_050"])
def test_avgmax_is_the_mean_of_average_and_maximum(name):
    torch.manual_seed(0)
    backbone = create_backbone(name, pooling="avgmax", **RGB).eval()
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        features = backbone(images)
        if name.startswith("mobilenet"):  # a convolution follows the pooling
            averages = create_backbone(name, pooling="avg", **RGB).eval()
            averages.load_state_dict(backbone.state_dict())
            assert not torch.allclose(features, averages(images))
            return
        maps = backbone.feature_maps(images)[-1].flatten(2)
    torch.testing.assert_close(features, (maps.mean(2) + maps.amax(2)) / 2)


def test_a_head_on_the_mean_of_both_learns_as_one_on_their_sum():
    """The relaxed loss does not change with the student's scale, so neither does the gradient of a linear layer."""
    from ssl_transfer.losses import relaxed_contrastive

    generator = torch.Generator().manual_seed(0)
    pooled, teacher = (torch.randn(9, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    gradients = []
    for features in (pooled, pooled / 2):
        leaf = weight.clone().requires_grad_()
        relaxed_contrastive(features @ leaf, teacher).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_pooling_is_part_of_what_is_saved(tmp_path):
    torch.manual_seed(0)
    model = build_model(spec("cifar_resnet8", "avgmax")).eval()
    save_model(tmp_path, model, spec("cifar_resnet8", "avgmax"))
    loaded, found = load_model(tmp_path)
    images = torch.rand(2, 3, 48, 48)
    assert found.pooling == "avgmax"
    torch.testing.assert_close(loaded(images), model(images))


def test_a_pooling_that_the_family_does_not_know_is_refused_by_name():
    with pytest.raises(ValueError, match="'vit_tiny_patch16_224' cannot be built for .* pooling sum"):
        create_backbone("vit_tiny_patch16_224", pooling="sum", **RGB)
