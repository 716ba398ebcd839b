"""Under what key a teacher's embeddings are remembered."""

import pytest
import torch

from ssl_transfer import config
from ssl_transfer.building.teacher_memory import _key
from ssl_transfer.context import Context
from ssl_transfer.data import Augment, Batches, Images
from ssl_transfer.models.checkpoint import ModelSpec, build_model
from tests.test_recipe import TRANSFER


@pytest.fixture
def batches():
    pixels = torch.randint(256, (30, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, None, None, "noise", "train", (0.5,) * 3, (0.3,) * 3)
    return Batches(images, [Augment(32)], seed=0, batch_size=8, fixed_views=3)


def test_a_network_of_the_same_weights_and_another_stride_is_another_teacher(batches):
    recipe = config.load(TRANSFER, ["data.fixed_views=3", "train.cpu_threads=1"])
    context = Context.start(recipe)

    def key(stem: str) -> dict[str, object]:
        torch.manual_seed(0)
        teacher = build_model(ModelSpec("mobilenetv3_small_100", stem, 3, 32, (0.5,) * 3, (0.3,) * 3))
        return _key(recipe, teacher, batches, context)

    plain, small = key("default"), key("cifar")
    assert plain == key("default")
    assert {name for name in plain if plain[name] != small[name]} == {"structure"}
