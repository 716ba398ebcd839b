"""What ``validate`` finds that the schema cannot know."""

import pytest
from PIL import Image

from ssl_transfer import checking, cli, config
from tests.test_config import PRETRAIN, TRANSFER


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(PRETRAIN)
    (tmp_path / "smaller.yaml").write_text(TRANSFER)
    for place in range(4):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / f"{place}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FOLDER = ("data.dataset=folder", "data.root=photos", "data.image_size=8", "data.batch_size=2")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.backbone=resent18"], "model.backbone: timm has no resent18: did you mean resnet18"),
        (["task.teacher={timm: resent18}"], "task.teacher.timm: timm has no resent18: did you mean resnet18"),
        (
            ["task.teacher={torchvision: resent18}"],
            "task.teacher.torchvision: torchvision has no resent18: did you mean",
        ),
        (["task.teacher={checkpoint: runs/none}"], "task.teacher.checkpoint: there is no runs/none"),
        (["task.teacher={file: none.pth, backbone: resent18}"], "task.teacher.file: there is no none.pth"),
        (["task.teacher={file: none.pth, backbone: resent18}"], "task.teacher.backbone: timm has no resent18"),
        (["task.teacher.recipe.model.backbone=resent18"], "task.teacher.recipe.model.backbone: timm has no resent18"),
        (["data.held_out=5000"], "data: digits train has 1442 images, not 1 to learn from and 5000 to hold out"),
        (["data.batch_size=2000"], "data.batch_size: 2000 images make a batch, and 1442 are trained on"),
        (["train.tracker=wandb"], "train.tracker: wandb is not installed: pip install wandb"),
        (["task.labels=true", *FOLDER], "data: photos train has no labels to learn"),
        (["score=[{kind: knn, k: [9000]}]"], "score.0 (knn): "),
    ],
)
def test_what_is_wrong_is_found_without_weights(here, monkeypatch, overrides, words):
    monkeypatch.setattr(checking, "find_spec", lambda name: None)
    problems, notes = checking.check(config.load("smaller.yaml", overrides))
    assert any(problem.startswith(words) for problem in problems) and not notes, problems


def test_a_good_recipe_has_no_problems_and_one_without_its_images_a_note(here, capsys):
    for path in ("small.yaml", "smaller.yaml"):
        assert checking.check(config.load(path, ["score=[{kind: knn}]"])) == ([], [])
    cli.main(["validate", "small.yaml", "data.dataset=cifar10", "data.root=nowhere"])
    shown = capsys.readouterr().out
    assert "small.yaml is a valid recipe" in shown and "not looked at, since its images are not here" in shown
    with pytest.raises(SystemExit):
        cli.main(["validate", "small.yaml", "model.backbone=resent18", "data.batch_size=2000"])
    assert capsys.readouterr().err.startswith("ssl-transfer: small.yaml: 2 problems\n  model.backbone: ")
    assert not (here / "nowhere").exists()
