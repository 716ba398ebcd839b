"""The part of the recipe that metric learning adds."""

import pytest

from ssl_transfer import config
from ssl_transfer.catalog.label_losses import ARGUMENTS
from ssl_transfer.errors import UserError


def load(recipes, *overrides: str) -> config.Recipe:
    return config.load(recipes / "birds" / "proxy-anchor-cpu.yaml", overrides)


def test_a_loss_is_completed_with_the_defaults_of_its_arguments(recipes):
    for loss, arguments in ARGUMENTS.items():
        assert load(recipes, f"task.loss={loss}").task.settings == arguments
    assert load(recipes, "task.settings={margin: 0.2}").task.settings == {"margin": 0.2, "alpha": 32.0}
    assert load(recipes, "task={kind: metric}").task.settings == ARGUMENTS["proxy_anchor"]  # the default


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


@pytest.mark.parametrize(
    ("recipe", "overrides", "splits"),
    [
        ("birds/proxy-anchor-cpu", [], "train and test of folder"),
        ("cub/proxy-anchor", [], "train and test of cub"),
        ("cars/proxy-anchor", [], "train and test of cars"),
        ("sop/proxy-anchor", [], "train and test of sop"),
        ("sop/proxy-anchor", ["data.dataset=in_shop", "data.test=gallery"], "train and gallery of in_shop"),
    ],
)
@pytest.mark.parametrize("kind", ["knn", "linear_probe", "few_shot", "finetune"])
def test_scores_of_classes_that_are_not_in_training_are_refused(recipes, recipe, overrides, splits, kind):
    path = recipes / f"{recipe}.yaml"
    with pytest.raises(UserError, match=f"score {kind} needs .* {splits} share none: score retrieval and clustering"):
        config.load(path, [*overrides, f"score=[{{kind: {kind}}}]"])
    config.load(path, [*overrides, "score=[{kind: retrieval}, {kind: clustering}]"])


def test_a_classifier_of_other_classes_is_not_scored(recipes):
    overrides = ["task={kind: classify}", "model.embedding_dim=null", "score=[{kind: classification}]"]
    with pytest.raises(UserError, match="score classification needs .* train and test of cub share none"):
        config.load(recipes / "cub" / "proxy-anchor.yaml", overrides)


def test_queries_learn_nothing_but_have_the_classes_of_the_gallery(recipes):
    overrides = ["data.dataset=in_shop", "data.train=query", "data.test=gallery", "score=[{kind: knn}]"]
    config.load(recipes / "sop" / "proxy-anchor.yaml", overrides)
