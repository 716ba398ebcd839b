"""Recipes: strict, complete, all problems at once."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ssl_transfer import config
from ssl_transfer.config.loading import Loader
from ssl_transfer.errors import UserError

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "recipes").rglob("*.yaml"))

PRETRAIN = """
name: small
seed: 0
data: {dataset: digits, batch_size: 32, augment: digits}
model: {backbone: tiny_convnet}
task: {kind: simclr}
optim: {name: adamw, lr: 2e-3}
train: {epochs: 2}
score: []
"""
TRANSFER = PRETRAIN.replace("name: small", "name: smaller").replace(
    "{kind: simclr}", "{kind: relaxed_contrastive, teacher: {recipe: small.yaml}}"
)


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.yaml").write_text(PRETRAIN)
    (tmp_path / "smaller.yaml").write_text(TRANSFER)
    return tmp_path


def problems(path, *overrides) -> list[str]:
    with pytest.raises(UserError) as caught:
        config.load(path, overrides)
    return str(caught.value).splitlines()


def test_recipes_are_shipped():
    names = {str(path.relative_to(ROOT / "recipes")) for path in SHIPPED}
    assert names >= {
        "digits/simclr.yaml",
        "digits/transfer.yaml",
        "cifar10/simclr.yaml",
        "cifar10/transfer.yaml",
        "cifar10/transfer-cpu.yaml",
    }


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_recipe_is_valid_and_opens_with_its_command(path):
    config.load(path)
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"accelerate launch -m ssl_transfer run {path.relative_to(ROOT)}" in "\n".join(comment)


def test_every_problem_is_told_at_once_with_the_nearest_name(small):
    (small / "bad.yaml").write_text(
        PRETRAIN.replace("backbone", "backbon")
        .replace("kind: simclr", "kind: simclrr")
        .replace("lr: 2e-3", "lr: fast")
        .replace("epochs: 2", "epochs: -1, precision: bf15")
    )
    lines = problems(small / "bad.yaml", "data.dataset=cifar1O", "trian.epochs=3", "seed")
    found = "\n".join(lines)
    assert "9 problems" in lines[0] and len(lines) == 10
    for part in (
        "model.backbon: is no key here; did you mean 'backbone'?",
        "model.backbone: is missing",
        "task: kind cannot be 'simclrr'; did you mean 'simclr'?",
        "optim.lr: cannot be 'fast': input should be a valid number",
        "train.epochs: cannot be -1",
        "train.precision: cannot be 'bf15'; did you mean 'bf16'?",
        "data.dataset: cannot be 'cifar1O'; did you mean 'cifar10'?",
        "trian: is no key here; did you mean 'train'?",
    ):
        assert part in found, f"{part!r} not in\n{found}"
    assert "'seed' is not an override" in found


def test_problems_of_the_teachers_recipe_are_told_with_its_place(small):
    lines = problems(small / "smaller.yaml", "task.teacher.recipe.optim.momentm=0.5")
    assert "task.teacher.recipe.optim.momentm: is no key here; did you mean 'momentum'?" in lines[1]


@pytest.mark.parametrize(
    ("given", "read"), [("3e-2", 0.03), ("-1E5", -1e5), ("1.5", 1.5), ("no", "no"), ("true", True), ("12", 12)]
)
def test_yaml_scalars_mean_what_they_look_like(given, read):
    value = yaml.load(given, Loader=Loader)
    assert value == read and type(value) is type(read)


def test_a_key_given_twice_is_an_error_and_not_the_last_one(small):
    (small / "twice.yaml").write_text(PRETRAIN + "seed: 1\n")
    assert "the key 'seed' is given twice" in problems(small / "twice.yaml")[0]


@pytest.mark.parametrize("given", ["yes", "'2'", "2.5", "[2]", "true"])
def test_nothing_but_a_whole_number_is_a_number_of_epochs(small, given):
    assert "train.epochs" in problems(small / "small.yaml", f"train.epochs={given}")[1]


def test_overrides_reach_lists_and_the_teachers_recipe(small):
    score = "score=[{kind: knn, k: [5]}]"
    recipe = config.load(small / "smaller.yaml", [score, "score.0.k=[7, 9]", "task.teacher.recipe.train.epochs=9"])
    assert recipe.score[0].k == (7, 9)
    assert recipe.task.teacher.recipe.train.epochs == 9 and recipe.train.epochs == 2


def test_another_kind_takes_along_only_the_keys_it_has(small):
    recipe = config.load(small / "smaller.yaml", ["task.sigma=2.0", "task.kind=simclr", "task.temperature=0.3"])
    assert recipe.task == config.SimCLR(kind="simclr", temperature=0.3)


def test_the_teacher_looks_for_data_and_runs_where_the_student_does(small):
    recipe = config.load(small / "smaller.yaml", ["data.root=/images", "train.runs=/elsewhere"])
    assert recipe.task.teacher.recipe.data.root == "/images"
    assert recipe.task.teacher.recipe.train.runs == "/elsewhere"


def test_a_saved_recipe_is_complete_and_reads_back_equal(small, tmp_path):
    recipe = config.load(small / "smaller.yaml", ["data.augment.crop_scale=[0.3, 1.0]"])
    saved = tmp_path / "elsewhere" / "recipe.yaml"
    saved.parent.mkdir()
    saved.write_text(config.dump(recipe))
    assert config.load(saved) == recipe


def test_identity_is_what_decides_the_weights(small):
    def identity(*overrides):
        return config.identity_hash(config.load(small / "smaller.yaml", overrides))

    plain = identity()
    for decides_nothing in (
        "name=x",
        "data.root=/y",
        "train.runs=z",
        "train.log_every=1",
        "score=[{kind: linear_probe}]",
    ):
        assert identity(decides_nothing) == plain, decides_nothing
    for decides in ("seed=1", "optim.lr=1", "train.epochs=3", "data.held_out=9", "task.teacher.recipe.seed=1"):
        assert identity(decides) != plain, decides


def test_differences_name_the_dotted_key_and_both_values():
    assert config.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}) == ["a.b was 1, is 3"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optim.warmup_epochs=3"], "optim.warmup_epochs is 3 but train.epochs only 2"),
        (["data.views=3"], "exactly two views"),
        (["model.embedding_dim=8"], "task.projection_dim"),
        (["data.augment=simclrr"], "did you mean 'simclr'?"),
        (["name=../up"], "use letters, digits"),
        (["data.test=train", "score=[{kind: knn}]"], "score knn would learn from the images that it is scored on"),
        (
            ["data.train=labeled", "data.test=labeled", "score=[{kind: finetune}]"],
            "the split labeled: name another in data.test or data.train",
        ),
        (["data.test=held_out"], "test is held_out: say with held_out how many images of train"),
        (
            ["task={kind: classify}", "score=[{kind: monitor, every: 1}]"],
            "hold some out of training with data.held_out",
        ),
    ],
)
def test_contradictions_are_refused(small, overrides, words):
    assert words in "\n".join(problems(small / "small.yaml", *overrides))


def test_what_learns_nothing_may_be_scored_on_the_images_of_training(small):
    config.load(small / "small.yaml", ["data.test=train", "score=[{kind: retrieval}, {kind: clustering}]"])


def test_probes_learn_from_the_rest_of_the_split_that_scored_images_are_held_out_of(small):
    held_out = ["data.held_out=100", "data.test=held_out", "score=[{kind: knn}, {kind: monitor, every: 1}]"]
    assert config.load(small / "small.yaml", held_out).data.splits["test"] == "train"
    config.load(small / "small.yaml", [*held_out, "task={kind: classify}"])
    birds = ["data.dataset=cub", "data.image_size=64", "score=[{kind: retrieval}, {kind: linear_probe}]"]
    config.load(small / "small.yaml", [*held_out[:2], *birds])  # held out of the classes that are trained on
    assert "share none" in "\n".join(problems(small / "small.yaml", *birds))


@pytest.mark.parametrize(
    ("overrides", "given"),
    [
        ([], "small (simclr) gives features and projection"),
        (["task.teacher.recipe.task.kind=classify"], "small (classify) gives features and logits"),
        (
            ["task.teacher.recipe.task.kind=metric", "task.teacher.recipe.model.embedding_dim=8"],
            "small (metric) gives features and embedding",
        ),
        (["task.teacher.recipe.task.kind=metric"], "small (metric) gives features: choose"),
    ],
)
def test_an_output_that_the_teachers_recipe_will_not_have_is_refused_before_it_is_trained(small, overrides, given):
    for output in ("features", "projection", "embedding", "logits"):
        asked = [*overrides, f"task.teacher.output={output}"]
        if output in given:
            assert config.load(small / "smaller.yaml", asked).teacher.output == output
        else:
            (_, told) = problems(small / "smaller.yaml", *asked)
            assert f"task.teacher.output is {output}, but the model of its recipe {given}" in told


def test_a_recipe_that_teaches_itself_is_told_in_one_sentence(small):
    (small / "small.yaml").write_text(TRANSFER)
    assert len(told := problems(small / "small.yaml")) == 1 and "names itself as its teacher" in told[0]
    (small / "small.yaml").write_text(TRANSFER.replace("small.yaml", "smaller.yaml"))
    assert "names itself as its teacher, or as that of its teacher" in problems(small / "smaller.yaml")[0]


@pytest.mark.parametrize("teacher", ["{}", "{timm: resnet18, checkpoint: runs/x}"])
def test_a_teacher_comes_from_exactly_one_place(small, teacher):
    assert (
        "exactly one of recipe, checkpoint, timm, torchvision, file"
        in problems(small / "smaller.yaml", f"task.teacher={teacher}")[1]
    )


def test_a_missing_file_is_told_in_one_sentence(small):
    assert problems(small / "nothing.yaml") == [f"there is no recipe {small / 'nothing.yaml'}"]
    assert "no recipe" in problems(small / "smaller.yaml", "task.teacher.recipe=other.yaml")[0]


@pytest.mark.parametrize("text", ["- a list", "a: [1", "\x00"])
def test_a_file_that_is_no_recipe_is_told_in_one_sentence(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    assert len(problems(tmp_path / "bad.yaml")) == 1


def test_validation_loads_no_torch():
    code = (
        "import sys; from ssl_transfer import cli; "
        f"cli.main(['validate', {str(ROOT / 'recipes/digits/transfer.yaml')!r}]); "
        "sys.exit(' '.join({'torch', 'timm', 'lightly', 'torchvision'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
