"""Whole runs with more than one teacher: side by side, and one after the other through generations."""

import json
from pathlib import Path

import pytest
import torch

from ssl_transfer import config, recipe, runs
from ssl_transfer.export.folder import export_run
from ssl_transfer.report.page import write_report
from ssl_transfer.training.engine import Interrupted
from tests.report.test_page import Page
from tests.test_config import ROOT
from tests.test_recipe import weights

DIGITS = ROOT / "recipes" / "digits"
SCORES = "score=[{kind: knn, k: [5]}, {kind: agreement, k: 5}]"
BOTH, TWICE = ("task.teacher.0.recipe", "task.teacher.1.recipe"), ("task.teacher.recipe.task.teacher.recipe",)


def small(name: str, folder: Path, inner: tuple[str, ...], *overrides: str) -> config.Recipe:
    """A recipe of few steps, and so are those ``inner`` to it."""
    own = ["data.batch_size=96", "train.steps=3", "train.precision=full"]
    short = [f"{place}.{override}" for place in inner for override in own]
    return config.load(
        DIGITS / f"{name}.yaml",
        [*own, *short, "train.cpu_threads=1", f"train.runs={folder}", SCORES, "data.fixed_views=1", *overrides],
    )


@pytest.fixture(scope="module")
def taught_by_two(tmp_path_factory) -> Path:
    """The folder of a run whose first teacher is asked in every step and whose second is remembered."""
    memories = ["task.teacher.0.memory=none", "task.teacher.1.memory=float32", "task.teacher.1.output=projection"]
    return recipe.run(small("two-teachers", tmp_path_factory.mktemp("two"), BOTH, *memories))


@pytest.mark.slow
def test_both_teachers_are_trained_first_and_scored_beside_their_student(taught_by_two):
    folders = {path.name for path in taught_by_two.parent.glob("*/run.json") for path in [path.parent]}
    assert folders == {"digits-simclr", "digits-moco", "digits-two-teachers"}
    content = json.loads((taught_by_two / "scores.json").read_text())
    scores = runs.read_scores(taught_by_two)
    models = ["teacher 1 (tiny_convnet)", "teacher 2 (tiny_convnet)", "student (cifar_resnet8)"]
    assert scores.table.models == [*models, "untrained (cifar_resnet8)", "raw pixels"]
    agreement = [f"{name} with teacher {number}" for number in (1, 2) for name in ("overlap 5", "CKA", "Spearman")]
    assert scores.table.metrics == ["kNN 5", *agreement]
    values = {(score.model, score.metric): score.value for score in scores.scores}
    for number, model in enumerate(models[:2], start=1):
        kept = values[models[2], "kNN 5"] / values[model, "kNN 5"]
        assert content["retention"][f"teacher {number}"] == {"kNN 5": pytest.approx(kept)}
        assert (model, f"CKA with teacher {number}") not in values
    assert values[models[2], "CKA with teacher 1"] != values[models[2], "CKA with teacher 2"]
    assert runs.read_info(taught_by_two).origin.keys() == {"teacher 1 weights", "teacher 2 weights"}


@pytest.mark.slow
def test_report_and_model_card_name_both_teachers(taught_by_two, tmp_path):
    text = Page(write_report(taught_by_two).read_text()).text
    for shown in (
        "cifar_resnet8 learned from the teachers tiny_convnet and tiny_convnet by the task",
        "teacher 2 tiny_convnet, trained by the recipe digits-moco; its projection was transferred",
        "The student keeps",
        "of teacher 2's scores (kNN 5).",
        "kept of teacher 1 kept of teacher 2",
        "CKA with teacher 2",
    ):
        assert shown in text, shown
    export_run(taught_by_two, tmp_path / "exported", file_format="timm", push_to_hub=None)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "from the teachers tiny_convnet (its features) and tiny_convnet (its projection) on `digits`" in card


@pytest.mark.slow
def test_what_is_remembered_of_one_of_two_teachers_changes_no_bit(taught_by_two):
    runs_folder = taught_by_two.parent
    (memory,) = (runs_folder / "teacher-memory").iterdir()
    assert json.loads((memory / "key.json").read_text())["output"] == "projection"
    asking = ["name=asking", "task.teacher.0.memory=none", "task.teacher.1.memory=none"]
    folder = recipe.run(
        small("two-teachers", runs_folder, BOTH, *asking, "task.teacher.1.output=projection", "score=[]")
    )
    found = weights(folder)
    assert all(torch.equal(weight, found[name]) for name, weight in weights(taught_by_two).items())


@pytest.mark.slow
def test_generations_are_chained_by_one_recipe_and_go_on_where_they_stopped(tmp_path, capsys):
    inner = ("task.teacher.recipe", *TWICE)
    views = [f"{place}.data.fixed_views=1" for place in inner[:1]]
    given = small("self-transfer-twice", tmp_path, inner, *views)
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        recipe.run(given, stop=lambda step: step == 2 and next(calls) == 1)  # in the second run of three
    infos = {path.parent.name: runs.read_info(path.parent) for path in tmp_path.glob("*/run.json")}
    assert infos["digits-simclr"].finished and infos["digits-self-transfer"].steps == 2
    folder = recipe.run(given)
    generations = ["digits-simclr", "digits-self-transfer", "digits-self-transfer-twice"]
    assert sorted(path.parent.name for path in tmp_path.glob("*/run.json")) == sorted(generations)
    made = [weights(tmp_path / name) for name in generations]
    names = {name for name in made[0] if name.startswith("backbone")}
    assert all(names <= one.keys() for one in made)  # one architecture
    assert len({one["backbone.network.stem.weight"].sum().item() for one in made}) == 3
    assert len(list((tmp_path / "teacher-memory").iterdir())) == 2  # of two teachers
    scores = runs.read_scores(folder)
    assert scores.table.models[:2] == ["teacher (tiny_convnet)", "student (tiny_convnet)"]
    assert "learned from the teacher tiny_convnet" in Page((folder / "report.html").read_text()).text

    capsys.readouterr()
    other = small("self-transfer-twice", tmp_path, inner, *views, f"{TWICE[0]}.seed=7", "score=[]")
    beside = recipe.run(other)  # another first teacher makes all three others
    assert beside.name == f"digits-self-transfer-twice-{config.identity_hash(other)}"
    assert len(list(tmp_path.glob("*/run.json"))) == 6
    said = " ".join(capsys.readouterr().out.split())
    assert "holds another recipe (task.teacher.recipe.task.teacher.recipe.seed was 0, is 7)" in said
