"""The part of the recipe that metric learning adds."""

import pytest

from ssl_transfer import config
from ssl_transfer.errors import UserError
from ssl_transfer.losses.labels import ARGUMENTS


def load(recipes, *overrides: str) -> config.Recipe:
    return config.load(recipes / "birds" / "proxy-anchor-cpu.yaml", overrides)


def test_a_loss_is_completed_with_the_defaults_of_its_arguments(recipes):
    for loss, arguments in ARGUMENTS.items():
        assert load(recipes, f"task.loss={loss}").task.settings == arguments
    assert load(recipes, "task.settings={margin: 0.2}").task.settings == {"margin": 0.2, "alpha": 32.0}


@pytest.mark.parametrize(
    "override, words",
    [
        ("task.settings={margn: 0.2}", "settings has no key 'margn'; did you mean 'margin'"),
        ("task.loss=proxy_nca", "task.loss: cannot be 'proxy_nca'.*proxy_anchor"),
        ("data.per_class=7", "batch_size 60 is not a multiple of per_class 7"),
        ("data.crop_size=64", "crop_size is 64 but image_size only 56"),
        ("data.image_size=null", "dataset folder needs image_size"),
        ("data.dataset=cub", "train_classes is for dataset folder: cub has a split of its own"),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(recipes, override, words):
    with pytest.raises(UserError, match=words):
        load(recipes, override)
