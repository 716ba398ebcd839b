import pickle
from copy import deepcopy

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.transforms.v2 import functional as reference

from ssl_transfer.models import Backbone, Preprocessing, create_backbone
from ssl_transfer.models.backbones import sized_backbone
from ssl_transfer.models.stems import STEMS, cifar_stem

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
RGB = {"mean": MEAN, "std": STD, "image_size": 32}

# At least one network of each row of the table of stems, and the variants whose stems differ within a family.
STEM_EXAMPLES = """
repvgg_a0 mobileone_s0 mobilevit_xxs gernet_s convnext_atto darknet17 cspresnet50 densenet121
densenetblur121d dpn48b edgenext_xx_small mobilenetv2_035 tf_efficientnetv2_b0 fasternet_t0 fastvit_t8
ghostnet_050 hgnet_tiny hgnetv2_b0 hrnet_w18_small inception_next_atto poolformerv2_s12
mobilenetv3_small_050 mobilenetv4_conv_small_035 regnetx_002 repghostnet_050 repvit_m0_9 resnet18 resnet50d
resnetaa50d resnext50_32x4d res2net50_14w_8s skresnet18 resnest14d resnetv2_18 resnetv2_50d rexnet_100
cifar_resnet20 cifar_wrn16_2 tiny_convnet starnet_s050 ese_vovnet19b_slim
""".split()


def random_images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (96, 96), (8, 8)])
def test_preprocessing_equals_torchvisions_resize_and_normalize(size):
    backbone = Backbone(nn.Identity(), name="none", num_features=1, preprocessing=Preprocessing(MEAN, STD, 32))
    images = random_images(3, 3, *size)
    expected = reference.normalize(reference.resize(images, [32, 32], antialias=True), MEAN, STD)
    torch.testing.assert_close(backbone.prepare(images), expected)


def test_preprocessing_is_told_as_it_was_given():
    backbone = create_backbone("tiny_convnet", **RGB)
    assert backbone.preprocessing == Preprocessing(MEAN, STD, 32)


def test_checkpoint_brings_its_preprocessing():
    trained = create_backbone("tiny_convnet", **RGB)
    loaded = create_backbone("tiny_convnet", **{**RGB, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    loaded.load_state_dict(trained.state_dict())
    assert loaded.preprocessing == trained.preprocessing
    images = random_images(2, 3, 32, 32)
    torch.testing.assert_close(loaded.eval()(images), trained.eval()(images), rtol=0, atol=0)


def test_features_equal_timms_own_on_normalized_images():
    backbone = create_backbone("cifar_resnet20", **RGB).eval()
    network = timm.create_model("cifar_resnet20", num_classes=0).eval()
    network.load_state_dict(backbone.network.state_dict())
    images = random_images(4, 3, 32, 32)
    torch.testing.assert_close(backbone(images), network(reference.normalize(images, MEAN, STD)))


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_wrn16_1", "tiny_convnet", "mobilenetv3_small_050"])
def test_gradient_reaches_every_parameter_and_the_images(name):
    backbone = create_backbone(name, stem="cifar", **RGB)
    images = random_images(4, 3, 32, 32).requires_grad_()
    backbone(images).square().sum().backward()
    for name, tensor in [("images", images), *backbone.named_parameters()]:
        assert tensor.grad is not None and tensor.grad.abs().sum() > 0, name


def test_building_leaves_no_trace_of_the_trial_run():
    state = torch.random.get_rng_state()
    backbone = create_backbone("tiny_convnet", **RGB)
    after = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    network = timm.create_model("tiny_convnet", num_classes=0)
    assert torch.equal(after, torch.random.get_rng_state())
    assert all(module.training for module in backbone.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, backbone.network.state_dict()[name]), name


def test_digits_of_8_pixels_and_one_channel():
    backbone = create_backbone("tiny_convnet", in_chans=1, image_size=8, mean=(0.3,), std=(0.4,))
    assert backbone(random_images(4, 1, 8, 8)).shape == (4, backbone.num_features)


def test_vision_transformer_is_built_for_the_image_size():
    backbone = create_backbone("vit_tiny_patch16_224", **RGB).eval()
    assert backbone.input_size == 32
    assert backbone.network.pos_embed.shape[1] == 1 + (32 // 16) ** 2
    assert [tuple(feature_map.shape[1:]) for feature_map in backbone.feature_maps(random_images(1, 3, 32, 32))] == [
        (192, 2, 2)
    ] * 12


@pytest.mark.parametrize(
    ("name", "asked", "size"),
    [
        ("vit_tiny_patch16_224", 32, 32),
        ("vit_tiny_patch16_224", 30, 32),
        ("vit_tiny_patch16_224", 33, 48),
        ("eva02_tiny_patch14_224", 32, 42),
        ("vit_small_patch14_dinov2", 64, 70),
        ("pit_ti_224", 30, 32),  # patches of 16 px that overlap by half
        ("swin_tiny_patch4_window7_224", 30, 32),
        ("mixer_s32_224", 48, 64),
        ("convmixer_768_32", 32, 35),  # built for no size, and its stem of 7 px leaves out edges too
    ],
)
def test_images_are_brought_to_a_size_that_the_network_sees_whole(name, asked, size):
    torch.manual_seed(0)
    backbone = create_backbone(name, image_size=asked, mean=MEAN, std=STD).eval()
    assert backbone.input_size == backbone.preprocessing.input_size == size
    images = random_images(1, 3, asked, asked)
    with torch.no_grad():
        features = backbone(images)
        for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            changed = images.clone()
            changed[..., row, column] += 100.0
            assert not torch.equal(backbone(changed), features), (row, column)


def test_a_size_that_is_seen_whole_changes_nothing():
    """The network is built once and draws the weights that timm draws."""
    torch.manual_seed(0)
    backbone = create_backbone("vit_tiny_patch16_224", **RGB)
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, backbone.network.state_dict()[name]), name


class Cropping(nn.Module):
    """Looks at the upper left of any image."""

    def forward(self, images):
        return images[..., :8, :8].mean((2, 3))


def test_a_network_that_leaves_out_edges_at_all_sizes_is_refused_but_at_its_own():
    asked = Preprocessing(MEAN, STD, 32)
    with pytest.raises(ValueError, match="'crop' leaves out the right and lower edges of images of 32 px"):
        sized_backbone(lambda size: Cropping(), "crop", asked, own_size=64, rebuild=False)
    assert sized_backbone(lambda size: Cropping(), "crop", asked, own_size=32, rebuild=False).num_features == 3


def test_family_with_a_smallest_size_gets_resized_images():
    backbone = create_backbone("lambda_resnet26t", **RGB)
    assert backbone.input_size == 128
    assert backbone.prepare(random_images(1, 3, 32, 32)).shape == (1, 3, 128, 128)


def test_last_feature_map_pools_to_the_features():
    backbone = create_backbone("resnet10t", stem="cifar", **RGB).eval()
    images = random_images(2, 3, 32, 32)
    maps = backbone.feature_maps(images)
    assert [feature_map.shape[-1] for feature_map in maps] == [32, 32, 16, 8, 4]
    torch.testing.assert_close(maps[-1].mean((2, 3)), backbone(images))


def test_drop_path_reaches_the_network():
    backbone = create_backbone("cifar_resnet20", **RGB)
    assert not any(isinstance(module, DropPath) for module in backbone.modules())
    backbone = create_backbone("resnet18", drop_path=0.2, **RGB)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.2)


def test_backbone_can_be_copied_and_pickled():
    backbone = create_backbone("tiny_convnet", **RGB).eval()
    images = random_images(2, 3, 32, 32)
    for twin in (deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        torch.testing.assert_close(twin(images), backbone(images), rtol=0, atol=0)


def test_every_family_in_the_table_of_stems_has_an_example():
    families = {family_of(name) for name in STEM_EXAMPLES}
    assert families == set(STEMS)


def family_of(name: str) -> str:
    with torch.device("meta"):
        return type(timm.create_model(name, num_classes=0)).__module__.rpartition(".")[2]


@pytest.mark.parametrize("name", STEM_EXAMPLES)
def test_cifar_stem_keeps_the_resolution(name):
    sizes = []
    with torch.device("meta"):  # shapes without arithmetic
        network = cifar_stem(timm.create_model(name, num_classes=0), name).eval()
        for path in STEMS[type(network).__module__.rpartition(".")[2]]:
            network.get_submodule(path).register_forward_hook(lambda module, inputs, output: sizes.append(output.shape))
        features = network(torch.empty(1, 3, 32, 32))
    assert features.ndim == 2
    assert sizes and all(size[-2:] == (32, 32) for size in sizes), sizes


def test_default_stem_does_not_keep_the_resolution():
    """Otherwise the test above would prove nothing."""
    assert create_backbone("resnet10t", **RGB).eval().feature_maps(random_images(1, 3, 32, 32))[1].shape[-1] == 8


def test_resnet_cifar_stem_is_the_one_of_simclr():
    network = create_backbone("resnet18", stem="cifar", **RGB).network
    assert (network.conv1.kernel_size, network.conv1.stride, network.conv1.padding) == (
        (3, 3),
        (1, 1),
        (1, 1),
    )
    assert network.conv1.bias is None
    assert isinstance(network.maxpool, nn.Identity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, r"no backbone named 'resnet81' in timm: did you mean resnet18"),
        ({"name": "mobilenet_v3_smal"}, "did you mean .*mobilenetv3_small"),
        ({"name": "cifar_resnet21"}, "did you mean .*cifar_resnet20"),
        ({"name": "£££"}, r"timm.list_models\(\) lists them"),
        (
            {"name": "resnet18.nope"},
            "no weights named 'resnet18.nope' in timm: of resnet18 it has resnet18.a1_in1k",
        ),
        (
            {"name": "inception_v3"},
            "'inception_v3' cannot take images of 32 px: choose larger images or another",
        ),
        ({"name": "vit_tiny_patch16_224", "image_size": 8}, "cannot take images of 8 px"),
        (
            {"name": "tiny_convnet", "pretrained": True},
            "'tiny_convnet' cannot be built for .* pretrained True",
        ),
        ({"name": "densenet121", "drop_path": 0.1}, "'densenet121' cannot be built for .* drop_path 0.1"),
        (
            {"name": "vit_tiny_patch16_224", "stem": "cifar"},
            "has no stem to change .* byobnet, convnext, .*resnet",
        ),
        ({"name": "tiny_convnet", "stem": "CIFAR"}, "no stem named 'CIFAR': choose 'default' or 'cifar'"),
        ({"name": "tiny_convnet", "in_chans": 1}, "one value for each of the 1 channels"),
        ({"name": "tiny_convnet", "mean": (0.5,)}, "one value for each of the 3 channels"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        create_backbone(**{**RGB, **arguments})
    assert "\n" not in str(caught.value)


def test_images_with_other_channels_are_refused():
    """One channel would broadcast against three means and train on three copies."""
    backbone = create_backbone("tiny_convnet", **RGB)
    with pytest.raises(ValueError, match="built for 3 channels and was given images of 1"):
        backbone(random_images(2, 1, 32, 32))


def test_network_without_feature_maps_says_so():
    backbone = Backbone(nn.Identity(), name="none", num_features=1, preprocessing=Preprocessing(MEAN, STD, 32))
    with pytest.raises(ValueError, match="'none' does not give feature maps"):
        backbone.feature_maps(random_images(2, 3, 32, 32))
