"""Any timm family can be the student: each row of docs/backbones.md is true, and its network trains for two steps."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ssl_transfer.models import EmbeddingHead, EmbeddingModel, create_backbone
from ssl_transfer.models.freezing import stage_count
from ssl_transfer.models.stems import STEMS
from ssl_transfer.training.optim import create_optimizer

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"
ROWS = [
    [cell.strip(" `") for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and "`" in line
]
COLORS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}

# Networks whose changed stem is trained too, on images of 16 px: at 32 px they would take minutes.
WITH_CIFAR_STEM = """
resnet10t resnext26ts seresnet18 densenet121 convnext_atto mobilenetv2_035 mobilenetv3_small_050 mobileone_s0
mobilenetv4_conv_small_035 efficientnet_lite0 regnetx_002 mobilevit_xxs fastvit_t8 hgnetv2_b0 ghostnet_050 repvgg_a0
repvit_m0_9 edgenext_xx_small starnet_s050
""".split()


@pytest.fixture(autouse=True)
def one_thread():
    """On a few small images a second thread only spins: 91 s became 353 s on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check_two_steps(backbone, size: int) -> None:
    student = EmbeddingModel(backbone, EmbeddingHead(backbone.num_features, embedding_dim=8))
    optimizer = create_optimizer(student, name="adamw", lr=1e-3, weight_decay=1e-4)
    images, teacher = torch.rand(4, 3, size, size), torch.randn(4, 8)
    for _ in range(2):
        optimizer.zero_grad()
        F.mse_loss(student(images), teacher).backward()
        # A parameter without a gradient would stop DistributedDataParallel; a zero gradient is right where attention
        # sees a single token.
        for name, parameter in student.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert next(backbone.network.parameters()).grad.any(), "the first layer learns"
        optimizer.step()
    embeddings = student.eval()(images)
    assert embeddings.isfinite().all() and embeddings.shape == (4, 8)


def test_the_table_has_families_of_every_kind():
    families = {(row[2], row[0]) for row in ROWS}
    assert len(families) >= 60
    for kind, fewest in {"Convolutional": 15, "Mobile": 10, "Hybrid": 15, "Transformer": 15}.items():
        assert len([family for family in families if family[0] == kind]) >= fewest, kind


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[row[1] for row in ROWS])
def test_family_trains_as_a_student_and_is_what_its_row_says(row):
    _, name, _, at_32, at_64, weights, stem, maps, stages = row
    torch.manual_seed(0)
    size, input_size = (32, at_32) if at_32 != "-" else (64, at_64)
    backbone = create_backbone(name, image_size=size, **COLORS)
    assert backbone.input_size == int(input_size)
    assert f"{sum(weight.numel() for weight in backbone.parameters()) / 1e6:.1f}" == weights
    assert stages == "-" or stage_count(backbone) == int(stages)
    assert stem == "no" or type(backbone.network).__module__.rpartition(".")[2] in STEMS
    assert maps == "yes"
    maps_of_stages = backbone.eval().feature_maps(torch.rand(1, 3, size, size))
    assert maps_of_stages and all(stage.ndim == 4 for stage in maps_of_stages)
    backbone.train()
    check_two_steps(backbone, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_CIFAR_STEM)
def test_family_trains_with_a_cifar_stem(name):
    torch.manual_seed(0)
    check_two_steps(create_backbone(name, stem="cifar", image_size=16, **COLORS), 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "efficientformer_l1", "crossvit_tiny_240"])
@pytest.mark.parametrize("size", [32, 64])
def test_family_that_cannot_take_small_images_says_so_in_one_line(name, size):
    with pytest.raises(ValueError, match=f"'{name}' cannot take images of {size} px: choose larger images") as caught:
        create_backbone(name, image_size=size, **COLORS)
    assert "\n" not in str(caught.value)
