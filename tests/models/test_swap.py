"""Any timm family can be the student: two training steps on 32 px images for each of these."""

import pytest
import torch
import torch.nn.functional as F

from ssl_transfer.models import EmbeddingHead, EmbeddingModel, create_backbone
from ssl_transfer.optim import create_optimizer

# The smallest network of each family; the second list has no stem to change, or takes long with one.
WITH_CIFAR_STEM = """
resnet10t resnext26ts seresnet18 convnext_atto mobilenetv2_035 mobilenetv3_small_050 mobilenetv4_conv_small_035
efficientnet_lite0 regnetx_002 mobilevit_xxs ghostnet_050 repvgg_a0 edgenext_xx_small starnet_s050 cifar_wrn16_2
""".split()
AS_THEY_ARE = """
densenet121 mobileone_s0 fastvit_t8 repvit_m0_9 hgnetv2_b0 vit_tiny_patch16_224 deit_tiny_patch16_224
swin_tiny_patch4_window7_224 efficientformerv2_s0 xcit_nano_12_p8_224 maxvit_pico_rw_256 coatnet_pico_rw_224
levit_128s pvt_v2_b0 tiny_vit_5m_224 mixer_s32_224
""".split()
STUDENTS = [(name, "cifar") for name in WITH_CIFAR_STEM] + [(name, "default") for name in AS_THEY_ARE]


@pytest.fixture(autouse=True)
def one_thread():
    """On four small images a second thread only spins: 91 s became 353 s on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stem"), STUDENTS)
def test_family_trains_as_a_student(name, stem):
    torch.manual_seed(0)
    backbone = create_backbone(name, stem=stem, image_size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    student = EmbeddingModel(backbone, EmbeddingHead(backbone.num_features, embedding_dim=8))
    optimizer = create_optimizer(student, name="adamw", lr=1e-3, weight_decay=1e-4)
    images, teacher = torch.rand(4, 3, 32, 32), torch.randn(4, 8)
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.mse_loss(student(images), teacher)
        loss.backward()
        # A parameter without a gradient would stop DistributedDataParallel; a zero gradient is right where attention
        # sees a single token.
        for parameter_name, parameter in student.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        assert next(backbone.network.parameters()).grad.any(), "the first layer learns"
        optimizer.step()
    embeddings = student.eval()(images)
    assert embeddings.isfinite().all() and embeddings.shape == (4, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "efficientformer_l1", "crossvit_tiny_240"])
def test_family_that_cannot_take_32_pixels_says_so_in_one_line(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot take images of 32 px: choose larger images") as caught:
        create_backbone(name, image_size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert "\n" not in str(caught.value)
