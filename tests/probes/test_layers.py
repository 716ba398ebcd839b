import pytest
import timm
import torch

from ssl_transfer.probes import PooledLayer, extract_features


def network(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **options).eval()


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_stage_of_a_convolutional_network_is_averaged_over_space(images):
    resnet = network("resnet18")
    expected = timm.create_model("resnet18", features_only=True).eval()
    expected.load_state_dict(resnet.state_dict(), strict=False)
    maps = dict(zip(expected.feature_info.module_name(), expected(images), strict=True))
    for layer in ("layer1", "layer3"):
        torch.testing.assert_close(PooledLayer(resnet, resnet, layer)(images), maps[layer].mean((2, 3)))


@torch.no_grad()
def test_tokens_are_averaged_over_patches_without_the_class_token(images):
    vit = network("vit_tiny_patch16_224", img_size=64)
    tokens = vit.forward_intermediates(images, indices=[5], intermediates_only=True, norm=False, output_fmt="NLC")[0]
    torch.testing.assert_close(PooledLayer(vit, vit, "blocks.5")(images), tokens.mean(dim=1))


@torch.no_grad()
def test_maps_with_channels_last_are_averaged_over_space_too(images):
    swin = network("swin_tiny_patch4_window7_224", img_size=64, window_size=2)
    assert PooledLayer(swin, swin, "layers.1")(images).shape == (3, 192)


@torch.no_grad()
def test_the_pooled_layer_itself_is_the_networks_output(images):
    resnet = network("resnet18")
    torch.testing.assert_close(PooledLayer(resnet, resnet, "global_pool")(images), resnet(images))


def test_a_layer_in_training_mode_is_refused(images):
    resnet = network("resnet18")
    resnet.layer4.train()
    with pytest.raises(ValueError, match=r"in training mode"):
        extract_features(PooledLayer(resnet, resnet, "layer1"), (images * 255).byte())


def test_an_unknown_layer_is_refused_with_the_nearest_name_and_the_stages():
    resnet = network("resnet18")
    with pytest.raises(ValueError, match=r"no layer 'layer5': did you mean 'layer[1-4]'\? choose one of act1, layer1"):
        PooledLayer(resnet, resnet, "layer5")


def test_a_layer_that_does_not_run_is_refused(images):
    resnet = network("resnet18")
    resnet.spare = torch.nn.Identity()
    with pytest.raises(ValueError, match="does not run its layer 'spare'"):
        PooledLayer(resnet, resnet, "spare")(images)
