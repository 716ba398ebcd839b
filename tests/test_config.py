"""Recipes: strict, complete, all problems at once."""

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from ssl_transfer import config
from ssl_transfer.errors import UserError
from ssl_transfer.section import Section
from ssl_transfer.tasks.sections.pretraining import SimCLR
from ssl_transfer.teachers.section import Teacher

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
    value = config.parse(given)
    assert value == read and type(value) is type(read)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("", "seed: is missing"),
        ("seed: -1", "seed: cannot be -1: input should be greater than or equal to 0"),
        ("seed: 1.0", "seed: cannot be 1.0"),
    ],
)
def test_a_key_that_is_called_like_a_kind_is_named(small, change, told):
    (small / "small.yaml").write_text(PRETRAIN.replace("seed: 0", change))
    assert told in problems(small / "small.yaml")[1]


def test_a_value_that_may_be_two_things_is_told_once(small):
    score = "score=[{kind: knn, k: 5, temperature: [0.1, -1]}, {kind: few_shot}, {kind: knn, temperature: x}]"
    assert problems(small / "small.yaml", score)[1:] == [
        "  score.0.k: cannot be 5: write a list, such as [1, 2]",
        "  score.0.temperature.1: cannot be -1: input should be greater than 0",
        "  score.2.temperature: cannot be 'x': input should be a valid number",
    ]


def test_contradictions_are_told_all_at_once_and_beside_wrong_values(small):
    warm_up = ["optim.warmup_epochs=5", "task.teacher.recipe.optim.warmup_epochs=5"]
    told = "is 5 but train.epochs only 2"
    assert problems(small / "smaller.yaml", *warm_up)[1:] == [
        f"  task.teacher.recipe: optim.warmup_epochs {told}",
        f"  optim.warmup_epochs {told}",
    ]
    wrong = ["model.backbone=3", "data.workers=-1", "data.image_size=8", "data.per_class=7"]
    found = "\n".join(problems(small / "smaller.yaml", *warm_up, *wrong))
    for words in ("model.backbone: cannot be 3", "data.workers: cannot be -1", "task.teacher.recipe: optim.warmup"):
        assert words in found
    assert "data: the images of digits have their size" in found and "data: batch_size 32 is not a multiple" in found
    assert "7 problems" in found


def test_a_rule_that_misses_a_value_says_nothing(small):
    for without in ("train.epochs=none", "optim.warmup_epochs=none", "train=3"):
        found = problems(small / "small.yaml", "optim.warmup_epochs=5", without)
        assert len(found) == 2 and "but train.epochs only" not in found[1]


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
    recipe = config.load(small / "smaller.yaml", ["task.delta=2.0", "task.kind=simclr", "task.temperature=0.3"])
    assert recipe.task == SimCLR(kind="simclr", temperature=0.3)


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


TEACHER = "task.teacher"
RELAXED = "task={kind: relaxed_contrastive, teacher: {timm: resnet18}}"
FILES = ["data.dataset=folder", "data.image_size=32"]
CONTRADICTIONS = {
    "_crops_in_one_way": [(["data.augment={preset: weak, crop_scale: [0.2, 1]}"], "are two ways to crop")],
    "_only_files_have_an_image_size": [
        (["data.image_size=8"], "the images of digits have their size: leave out image_size"),
        (["data.dataset=cub"], "dataset cub needs image_size"),
    ],
    "_only_what_was_checked_is_skipped": [
        (["data.unchecked=true"], "digits is always held in memory: leave out unchecked"),
        ([*FILES, "data.unchecked=true", "data.on_error=skip"], "on_error: skip needs to know which images are broken"),
    ],
    "_only_shards_have_an_address": [
        (["data.root=s3://bucket/digits"], "is an address, which is for dataset webdataset")
    ],
    "_only_files_are_decoded_as_needed": [(["data.resident=false"], "digits is always held in memory")],
    "_a_view_is_no_larger_than_the_image": [
        ([*FILES, "data.crop_size=33"], "crop_size is 33 but image_size only 32"),
        (["data.crop_size=9"], "crop_size is 9 but images of digits are only 8 pixels wide"),
    ],
    "_only_folders_divide_their_classes": [(["data.train_classes=3"], "train_classes is for dataset folder")],
    "_a_batch_has_whole_classes": [(["data.per_class=5"], "batch_size 32 is not a multiple of per_class 5")],
    "_what_is_tested_was_held_out": [(["data.test=held_out"], "say with held_out how many images of train")],
    "_freezes_weights_worth_keeping": [(["model.freeze=1"], "set pretrained: true as well")],
    "_freezes_no_new_stem": [
        (["model.freeze=1", "model.pretrained=true", "model.stem=cifar"], "freeze includes the stem")
    ],
    "_mean_and_std_are_of_the_same_colors": [
        (["model.mean=[0.5]", "model.std=[1, 1, 1]"], "model: mean has 1 values and std 3"),
        ([RELAXED, f"{TEACHER}.mean=[0.5]", f"{TEACHER}.std=[1, 1, 1]"], "teacher: mean has 1 values and std 3"),
    ],
    "_only_lars_has_settings_of_lars": [(["optim.lars={}"], "lars settings are for the optimizer lars")],
    "_momentum_is_of_sgd_and_lars": [(["optim.momentum=0.8"], "adamw has none but its betas, 0.9 and 0.999")],
    "_only_multi_step_has_milestones": [
        (["optim.milestones=[1]"], "schedule cosine with milestones [1]"),
        (["optim.schedule=multi_step"], "schedule multi_step needs milestones"),
    ],
    "_only_cosine_rises_and_ends": [
        (["optim={name: sgd, lr: 1, schedule: multi_step, milestones: [1], warmup_epochs: 1}"], "has no warmup_epochs"),
        (["optim={name: sgd, lr: 1, schedule: constant, final_lr: 0.1}"], "schedule constant has no final_lr"),
    ],
    "_the_warm_up_ends": [(["optim.warmup_epochs=3"], "optim.warmup_epochs is 3 but train.epochs only 2")],
    "_pretraining_has_two_views_and_a_projection": [
        (["data.views=3"], "exactly two views"),
        (["model.embedding_dim=8"], "task.projection_dim"),
    ],
    "_a_classifier_has_no_embedding": [
        (["task={kind: classify}", "model.embedding_dim=8"], "ends in a classifier: leave out model.embedding_dim")
    ],
    "_sigma_is_the_width_of_a_gaussian": [
        ([RELAXED, "task.sigma=0.5"], "sigma is 0.5, the width of a Gaussian, but affinity is standardized"),
        ([RELAXED, "task.affinity=gaussian"], "affinity gaussian needs sigma, its width: the paper has sigma: 1.0"),
    ],
    "_the_batch_is_large_enough": [
        (
            [RELAXED, "task.affinity=contextual", "task.neighbors=65"],
            "needs 65 views in a batch, data.batch_size 32 and data.views 2 make 64",
        ),
        ([RELAXED, "task.kind=dark_rank", "task.length=64"], "dark_rank needs 65 views in a batch"),
    ],
    "_maps_are_compared_of_whole_batches": [
        ([RELAXED, "task.kind=vid", "train.micro_batch_size=8"], "lower data.batch_size instead of micro_batch_size")
    ],
    "_the_teacher_has_the_output": [
        (
            [RELAXED, f"{TEACHER}={{recipe: small.yaml, output: logits}}"],
            "task.teacher.output is logits, but the model of its recipe small (simclr) gives features and projection",
        ),
        (
            ["task={kind: soft_targets, labels: true, teacher: {recipe: small.yaml}}"],
            "task.teacher.output is logits",  # which beside labels it is by default
        ),
        (
            ["task={kind: pkt, teacher: [{recipe: small.yaml}, {recipe: small.yaml, output: logits}]}"],
            "task.teacher.1.output is logits, but the model of its recipe small (simclr)",
        ),
    ],
    "_comes_from_one_place": [
        (
            ["task={kind: pkt, teacher: {}}"],
            "exactly one of recipe, checkpoint, zoo, timm, torchvision, file; given: none",
        ),
        ([RELAXED, f"{TEACHER}.checkpoint=runs/x"], "exactly one of recipe, checkpoint, zoo, timm, torchvision, file"),
    ],
    "_a_file_is_of_a_known_network": [([RELAXED, f"{TEACHER}={{file: x.pth}}"], "file needs backbone")],
    "_has_nothing_that_its_source_brings": [
        ([RELAXED, f"{TEACHER}.backbone=resnet18", f"{TEACHER}.stem=cifar"], "backbone, stem cannot be given with timm")
    ],
    "_most_losses_learn_from_one_teacher": [
        (
            [f"task={{kind: {kind}, teacher: [{{timm: a}}, {{timm: b}}]}}"],
            f"task: {kind} is made for the width, maps or classes of one teacher, 2 are given: name one, or take",
        )
        for kind in ("seed", "crd", "fitnet", "attention_transfer", "vid", "soft_targets")
    ],
    "_weights_are_of_several_teachers": [
        ([RELAXED, f"{TEACHER}.weight=2"], "teacher.weight is that of one teacher beside others, and there is one"),
        ([RELAXED, f"{TEACHER}=[{{timm: a, weight: 2}}]"], "teacher.weight is that of one teacher beside others"),
    ],
    "_some_of_several_teachers_are_left_out": [
        (
            [RELAXED, "task.teacher_dropout=0.5"],
            "teacher_dropout leaves out some of several teachers, and there is one",
        ),
        ([RELAXED, "task.kind=rkd", "task.teacher_dropout=0.5"], "teacher_dropout leaves out some of several teachers"),
    ],
    "_labels_are_learned_by_cross_entropy": [([RELAXED, "task.cross_entropy=2"], "cross_entropy is 2 but no labels")],
    "_settings_are_arguments_of_the_loss": [
        (["task={kind: metric, settings: {margn: 1}}"], "settings has no key 'margn'; did you mean 'margin'"),
        (["task={kind: metric, loss: normalized_softmax, settings: {temperature: 0}}"], "settings.temperature is 0"),
    ],
    "_columns_differ": [
        (["score=[{kind: knn}, {kind: knn}]"], "score: two entries give the column 'kNN 20'"),
        (["score=[{kind: knn}, {kind: knn}]"], "score: two entries give the column 'kNN 200'"),
        (["score=[{kind: monitor, every: 1}, {kind: monitor, every: 2}]"], "two entries are of the kind monitor"),
    ],
    "_a_classifier_is_scored_where_there_is_one": [
        (["score=[{kind: classification}]"], "score classification needs a classifier")
    ],
    "_folds_are_those_of_stl10": [
        (["score=[{kind: linear_probe, folds: true}]"], "folds are predefined in stl10's split train alone")
    ],
    "_learned_labels_are_not_monitored": [
        (
            ["task={kind: classify}", "score=[{kind: monitor, every: 1}]"],
            "hold some out of training with data.held_out",
        )
    ],
    "_scored_images_are_others_of_the_same_classes": [
        (["data.test=train", "score=[{kind: knn}]"], "score knn would learn from the images that it is scored on"),
        (
            ["data.train=labeled", "data.test=labeled", "score=[{kind: finetune}]"],
            "the split labeled: name another in data.test or data.train",
        ),
        (
            ["data.dataset=cub", "data.image_size=64", "score=[{kind: linear_probe}]"],
            "train and test of cub share none",
        ),
    ],
    "_weights_are_of_cosines": [(["score=[{kind: knn, metric: euclidean}]"], "set weighted: false")],
}


def sections(above: type[Section] = Section) -> Iterator[type[Section]]:
    for section in above.__subclasses__():
        if section.__module__.startswith("ssl_transfer."):
            yield section
            yield from sections(section)


def test_every_rule_has_a_recipe_that_breaks_it():
    assert {check.__name__ for section in sections() for check in section.rules()} == CONTRADICTIONS.keys()


@pytest.mark.parametrize(
    ("overrides", "words"), [case for cases in CONTRADICTIONS.values() for case in cases], ids=lambda value: None
)
def test_contradictions_are_refused(small, overrides, words):
    assert words in "\n".join(problems(small / "small.yaml", *overrides))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.augment=simclrr", "did you mean 'simclr'?"),
        ("name=../up", "use letters, digits"),
        (f"name={'a' * 201}", "at most 200 characters"),
        ("data.augment.crop_scale=[1, 0.2]", "the lower end comes first: write [0.2, 1]"),
        ("data.augment.crop_scale=[0.2, 2.0]", "less than or equal to 1"),
        ("data.augment.crop_scale=[0, 1]", "greater than 0"),
        ("data.augment.crop_ratio=[2, 1]", "the lower end comes first"),
        ("data.augment.blur_sigma=[0.1]", "data.augment.blur_sigma.1: is missing"),
        ("data.augment.hue=0.6", "less than or equal to 0.5"),
        ("model.mean=[123.7, 116.3, 103.5]", "less than or equal to 1"),
        ("model.std=[0, 0, 0]", "greater than 0"),
        ("model.mean=[0.5, 0.5]", "one value for gray images, or three"),
        ("optim.lr=1e300", "float32 holds no such number"),
        ("optim.lr=1e-300", "float32 holds no such number"),
        ("optim.weight_decay=1e31", "float32 holds no such number"),
        ("train.epochs=99999999999999999999", "less than 2147483648"),
        ("task={kind: correlation_congruence, order: 1442, teacher: {timm: resnet18}}", "less than or equal to 20"),
        ("task={kind: dark_rank, beta: 0.5, teacher: {timm: resnet18}}", "greater than or equal to 1"),
        ("task={kind: pkt, labels: 1, teacher: {timm: resnet18}}", "task.labels: cannot be 1: write true or false"),
        ("optim.decay_all=1", "write true or false"),
        ("data.resident=1", "write true or false"),
        ("data=3", "data: cannot be 3: write keys below it"),
        ("task=simclr", "task: cannot be 'simclr': write keys below it"),
        ("task={kind: [1]}", "kind cannot be"),
        ("task={kind: metric, loss: [1]}", "task.loss: cannot be [1]"),
        ("data.batch_size=null", "data.batch_size: cannot be null"),
    ],
)
def test_a_value_that_cannot_be_is_refused(small, override, words):
    assert words in "\n".join(problems(small / "small.yaml", override))


def holds_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(holds_numbers(inner) for inner in get_args(annotation))


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, 10**40, -(10**40)])
def test_no_number_of_any_section_is_without_bounds(number):
    count = 0
    for section in sections():
        for name, field in section.model_fields.items():
            if holds_numbers(field.annotation) and name != "settings":
                count += 1
                with pytest.raises(ValidationError) as caught:
                    section.model_validate({name: number})
                assert name in {error["loc"][0] for error in caught.value.errors()}, (section, name)
    assert count > 100


def test_a_path_begins_at_home_behind_a_tilde(small, monkeypatch):
    monkeypatch.setenv("HOME", str(small))
    home = ["data.root=~/photos", "train.runs=~/runs", "data.split=~/photos/train", "task.teacher.recipe=~/small.yaml"]
    recipe = config.load(small / "smaller.yaml", home)
    assert (recipe.data.root, recipe.train.runs) == (f"{small}/photos", f"{small}/runs")
    assert recipe.data.split == f"{small}/photos/train" and recipe.teachers[0].recipe.name == "small"
    assert Teacher(timm="local-dir:~/m").timm == f"local-dir:{small}/m" and Teacher(timm="hf-hub:a/~b").timm[-1] == "b"

    def identity(path):
        override = f"task.teacher={{checkpoint: {path}}}"
        return config.identity_hash(config.load(small / "smaller.yaml", [override]))

    assert identity("~/x") == identity(small / "x") != identity("./~/x")


@pytest.mark.parametrize("key", ["data.root", "train.runs", "data.train", "task.teacher.recipe"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("~nobody-of-this-name/x", "there is no home folder ~nobody-of-this-name: write ./~nobody"),
        ("$HOME/x", "nothing fills in $HOME here"),
        ("${DATA}/x", "nothing fills in ${ here"),
        ("'{{ DATA }}/x'", "nothing fills in {{ here"),
        ("''", "no path is empty"),
        ('"a\\0b"', "no control characters"),
        ('"a\\eb"', "no control characters"),
        ("a" * 256, "at most 255 bytes in each name"),
        ("a/" * 2000, "at most 3,000 in all"),
        ('"\\ud800"', "no such letters in paths"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(small, key, path, words):
    told = "\n".join(problems(small / "smaller.yaml", f"{key}={path}"))
    assert f"{key}: " in told and words in told


def test_defaults_keep_to_what_is_allowed():
    """pydantic takes a default as it is."""
    for section in sections():
        for name, field in section.model_fields.items():
            if not field.is_required() and field.default is not None and not name.startswith("settings"):
                try:
                    section.model_validate({name: field.default})
                except ValidationError as error:
                    assert name not in {detail["loc"][0] for detail in error.errors() if detail["loc"]}, (section, name)


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
            assert config.load(small / "smaller.yaml", asked).task.teacher.output == output
        else:
            (_, told) = problems(small / "smaller.yaml", *asked)
            assert f"task.teacher.output is {output}, but the model of its recipe {given}" in told


TWO = "task.teacher=[{recipe: small.yaml}, {recipe: small.yaml, output: projection, weight: 3}]"


def test_several_teachers_are_recipes_of_their_own_and_look_where_the_student_does(small):
    inner = ["task.teacher.1.recipe.seed=5", "task.teacher.0.recipe.data.augment=weak", "train.runs=/elsewhere"]
    recipe = config.load(small / "smaller.yaml", [TWO, *inner])
    first, second = recipe.teachers
    assert (first.recipe.seed, second.recipe.seed) == (0, 5)
    assert (first.output, second.output, first.weight, second.weight) == ("features", "projection", None, 3.0)
    assert (first.recipe.data.augment.preset, second.recipe.data.augment.preset) == ("weak", "digits")
    assert {teacher.recipe.train.runs for teacher in recipe.teachers} == {"/elsewhere"}
    (small / "saved.yaml").write_text(config.dump(recipe))
    assert config.load(small / "saved.yaml") == recipe


def test_what_decides_the_weights_of_one_of_several_teachers_decides_the_run(small):
    def identity(*overrides):
        return config.identity_hash(config.load(small / "smaller.yaml", [TWO, *overrides]))

    plain = identity()
    for decides_nothing in ("task.teacher.0.recipe.name=x", "task.teacher.1.recipe.data.root=/y"):
        assert identity(decides_nothing) == plain, decides_nothing
    ones = [f"task.teacher.{place}.recipe.seed=1" for place in (0, 1)]
    others = [*ones, "task.teacher.1.weight=2", "task.teacher_dropout=0.5", "task.teacher.0.output=projection"]
    assert len({plain, *map(identity, others)}) == 1 + len(others)


def test_a_list_of_one_teacher_is_that_teacher(small):
    single = config.load(small / "smaller.yaml", ["task.teacher.recipe.seed=3"])
    listed = config.load(
        small / "smaller.yaml", ["task.teacher=[{recipe: small.yaml}]", "task.teacher.0.recipe.seed=3"]
    )
    assert listed == single and config.dump(listed) == config.dump(single)
    assert config.identity_hash(listed) == config.identity_hash(single)


def test_problems_of_one_of_several_teachers_are_told_with_its_place(small):
    wrong = ["task.teacher.1.recipe.optim.momentm=0.5", "task.teacher.0.outptu=features", "task.teacher.1.weight=-1"]
    warm_up = "task.teacher.0.recipe.optim.warmup_epochs=5"
    found = "\n".join(problems(small / "smaller.yaml", TWO, *wrong, warm_up))
    for told in (
        "task.teacher.1.recipe.optim.momentm: is no key here; did you mean 'momentum'?",
        "task.teacher.0.outptu: is no key here; did you mean 'output'?",
        "task.teacher.1.weight: cannot be -1: input should be greater than 0",
        "task.teacher.0.recipe: optim.warmup_epochs is 5 but train.epochs only 2",
    ):
        assert told in found, f"{told!r} not in\n{found}"
    assert "4 problems" in found
    (_, told) = problems(small / "smaller.yaml", "task.teacher=[{recipe: small.yaml}, {recipe: other.yaml}]")
    assert told == f"  task.teacher.1.recipe: there is no recipe {small / 'other.yaml'}"
    assert "task.teacher: cannot be []" in problems(small / "smaller.yaml", "task.teacher=[]")[1]
    assert (
        "task.teacher.1: cannot be 3: write keys below it"
        in problems(small / "smaller.yaml", "task.teacher=[{recipe: small.yaml}, 3]")[1]
    )
    assert (
        "task.teacher.7.output: '7' is no position"
        in problems(small / "smaller.yaml", TWO, "task.teacher.7.output=logits")[1]
    )


def test_a_recipe_that_teaches_itself_is_told_in_one_sentence(small):
    (small / "small.yaml").write_text(TRANSFER)
    (_, told) = problems(small / "small.yaml")
    assert "task.teacher.recipe: " in told and "names itself as its teacher" in told
    (small / "small.yaml").write_text(TRANSFER.replace("small.yaml", "smaller.yaml"))
    (_, told) = problems(small / "smaller.yaml")
    assert "names itself as its teacher, or as that of its teacher" in told


def test_a_missing_file_is_told_in_one_sentence(small):
    assert problems(small / "nothing.yaml") == [f"there is no recipe {small / 'nothing.yaml'}"]
    (_, told) = problems(small / "smaller.yaml", "task.teacher.recipe=other.yaml")
    assert told == f"  task.teacher.recipe: there is no recipe {small / 'other.yaml'}"


def test_a_teacher_that_cannot_be_read_is_told_beside_the_other_problems_unless_another_is_named(small):
    (small / "smaller.yaml").write_text(TRANSFER.replace("small.yaml", "nothing.yaml"))
    found = problems(small / "smaller.yaml", "optim.lr=fast", "train.epochs=2", "optim.warmup_epochs=9")
    assert len(found) == 4 and "no recipe" in "".join(found) and "optim.lr" in "".join(found)
    assert config.load(small / "smaller.yaml", ["task.teacher.recipe=small.yaml"]).task.teacher.recipe.name == "small"


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 9)]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "a recipe is a mapping with the keys name, seed"),
        (b"- a list", "a recipe is a mapping with the keys name, seed"),
        (b"name: x\na: [1", ", line 2: not readable as YAML"),
        (b"name: x\n\x00", ", line 2: not readable as YAML"),
        (b"name: \xff", "not readable as UTF-8, see its byte 7"),
        (b"name: x\nseed: {{ SEED }}\n", ", line 2: a mapping or a list is no key; where a template left {{ ... }}"),
        (b"name: x\n? [1, 2]\n: 3", ", line 2: a mapping or a list is no key"),
        (b"name: x\noptim:\n  <<: {lr: 1}", ", line 3: merge keys (<<) are not supported"),
        (b"name: x\nseed: !!int three", ", line 2: tags are not supported: leave !!int out"),
        (b"name: !!python/object/apply:os.getcwd []", ", line 1: tags are not supported"),
        (b"name: x\nseed: " + b"9" * 5000, ", line 2: 5,000 digits are too many for a number"),
        (b"name: &a [*a]", "nested too deeply, or within itself"),
        (b"name: " + b"[" * 5000, "nested too deeply, or within itself"),
        (BOMB.encode(), "more than 2,000 values, with aliases written out"),
        (b"name: x\n#" + b"x" * 100_000, "more than 100,000 bytes"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_in_one_sentence_and_at_once(tmp_path, text, words):
    (tmp_path / "bad.yaml").write_bytes(text)
    start = time.process_time()
    (told,) = problems(tmp_path / "bad.yaml")
    assert words in told and len(told) < 300
    assert time.process_time() - start < 2


@pytest.mark.parametrize("value", ["{{ROOT}}", "[1", "!!int x", "*nothing", "{<<: {a: 1}}", "\x07"])
def test_an_override_that_is_no_value_is_told_beside_the_others(small, value):
    _, *told = problems(small / "small.yaml", f"data.root={value}", "optim.lr=fast")
    assert len(told) == 2 and "cannot be applied" in told[0] and "optim.lr: cannot be 'fast'" in told[1]


def test_an_alias_is_a_copy(small):
    """Or an override of the student's section would change the teacher's."""
    shared = TRANSFER.replace("optim: {", "optim: &both {").replace(
        "{recipe: small.yaml}",
        "{recipe: {name: own, seed: 0, data: {dataset: digits, batch_size: 32, augment: digits}, optim: *both,"
        " model: {backbone: tiny_convnet}, task: {kind: simclr}, train: {epochs: 1}, score: []}}",
    )
    first = [line for line in shared.splitlines() if line.startswith("optim")]
    others = [line for line in shared.splitlines() if not line.startswith("optim")]
    (small / "shared.yaml").write_text("\n".join(first + others))
    for override, rates in (("optim.lr=0.5", (0.5, 2e-3)), ("task.teacher.recipe.optim.lr=0.5", (2e-3, 0.5))):
        recipe = config.load(small / "shared.yaml", [override])
        assert (recipe.optim.lr, recipe.task.teacher.recipe.optim.lr) == rates


def test_what_is_written_short_may_be_short_at_any_depth(small):
    inline = yaml.safe_load(TRANSFER)
    inline["task"]["teacher"]["recipe"] = yaml.safe_load(TRANSFER)
    inline["task"]["teacher"]["recipe"]["data"]["augment"] = "moco_v2"
    (small / "inline.yaml").write_text(yaml.safe_dump(inline))
    recipe = config.load(small / "inline.yaml", ["task.teacher.recipe.task.teacher.recipe.data.augment=byol"])
    teacher = recipe.task.teacher.recipe
    presets = [one.data.augment.preset for one in (recipe, teacher, teacher.task.teacher.recipe)]
    assert presets == ["digits", "moco_v2", "byol"]


@pytest.mark.parametrize("word", ["1e3", "no", "012", "1_0", "true", "~", "1:30", "2001-01-01", ".5", "<<", "ü\u202e"])
def test_a_word_that_looks_like_something_else_is_read_back_as_it_was_written(word):
    written = config.reading.write({"a": word})
    assert config.parse(written) == yaml.safe_load(written) == {"a": word}


def test_mistakes_in_a_recipe_are_found_before_torch_is_loaded():
    """Only then does validate load what knows the names of networks."""
    code = (
        "import sys; from ssl_transfer import cli\n"
        f"try: cli.main(['validate', {str(ROOT / 'recipes/digits/transfer.yaml')!r}, 'optim.lrr=3'])\n"
        "except SystemExit as error: code = error.code\n"
        "sys.exit(' '.join({'torch', 'timm', 'lightly', 'torchvision'} & set(sys.modules)) or code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean 'lr'?" in done.stderr, done.stderr
