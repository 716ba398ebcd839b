"""Recall on the test split during training: the model's own, and chosen only in the score that says so."""

import json
from pathlib import Path

import pytest
import torch

from ssl_transfer import config
from ssl_transfer.data import load_images
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model
from ssl_transfer.scores.best_epoch import BestOnTest
from ssl_transfer.training.epoch_recall import RecallOnTest


def write_log(folder: Path, recall: list[tuple[float, float]]) -> None:
    lines: list[dict] = [{"step": 0, "epoch": 0.0, "loss": 1.0}]
    lines += [
        {"step": 10 * n - 1, "epoch": n - 0.1, "loss": 0.5, "test_recall_1": one, "test_recall_2": two}
        for n, (one, two) in enumerate(recall, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_epoch_is_that_of_the_best_first_recall_and_the_score_says_so(tmp_path):
    write_log(tmp_path, [(0.3, 0.5), (0.6, 0.7), (0.6, 0.9), (0.4, 0.95)])
    scores = BestOnTest(k=[1, 2]).from_log(tmp_path, "student (x)", "student")
    assert [(score.metric, score.value) for score in scores] == [("R@1 best-on-test", 0.6), ("R@2 best-on-test", 0.7)]
    assert {score.protocol["epoch_chosen_on"] for score in scores} == {"test split"}
    assert scores[0].protocol["chosen_epoch"] == 2


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 10])
def test_the_chosen_epoch_is_counted_from_one_whatever_the_steps_of_an_epoch(tmp_path, steps_per_epoch):
    lines = [
        {"step": step, "epoch": step / steps_per_epoch, "test_recall_1": float(n == 3)}
        for n, step in enumerate(range(steps_per_epoch - 1, 5 * steps_per_epoch, steps_per_epoch), start=1)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (score,) = BestOnTest(k=[1]).from_log(tmp_path, "student (x)", "student")
    assert (score.protocol["chosen_epoch"], score.protocol["epochs_measured"]) == (3, 5)


def test_a_run_trained_without_it_is_refused(tmp_path):
    write_log(tmp_path, [])
    with pytest.raises(FileNotFoundError, match="holds no Recall@1 on the test split during training.*best_on_test"):
        BestOnTest(k=[1, 2]).from_log(tmp_path, "student (x)", "student")


def test_recall_is_euclidean_in_what_the_model_gives_and_leaves_the_model_alone():
    images = load_images("digits", Path(), split="test", download=False)
    torch.manual_seed(0)
    head = HeadSpec("embedding", 3)
    spec = ModelSpec("tiny_convnet", "default", in_chans=1, image_size=8, mean=(0.3,), std=(0.4,), head=head)
    model = build_model(spec).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    watch = RecallOnTest(lambda: model, images, k=[1, 3], every=5)
    assert [bool(watch(step)) for step in range(10)] == [False] * 4 + [True] + [False] * 4 + [True]
    found = watch(4)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        x = model.eval()(images.pixels.float() / 255).double()
    distance = (x[:, None] - x[None]).square().sum(2).fill_diagonal_(torch.inf)
    match = images.labels[distance.argsort(dim=1)] == images.labels[:, None]
    for k in (1, 3):
        assert found[k] == pytest.approx(match[:, :k].any(1).double().mean().item(), abs=0.006)


def test_a_recipe_may_ask_for_it(recipes):
    recipe = config.load(recipes / "cub" / "compression.yaml")
    (score,) = [kind for kind in recipe.score if isinstance(kind, BestOnTest)]
    assert score.columns() == [f"R@{k} best-on-test" for k in (1, 2, 4, 8)] and score.every == 1
