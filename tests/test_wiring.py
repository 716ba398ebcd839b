"""Every key of a recipe reaches the object that it names, on the path that a run takes.

The keys are read from the schema, so a new one without a case here fails. A case overrides one key, lets
``recipe.run`` build everything up to the training loop, and looks at what the loop is handed; what it sees must also
differ from what the recipe without the override gives, or the case could not fail.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from timm.layers import DropPath
from torch import nn

from ssl_transfer import config, context, recipe
from ssl_transfer.building import model as building_model
from ssl_transfer.config.schema import Recipe
from ssl_transfer.data import load_images
from ssl_transfer.data.views import augment
from ssl_transfer.features import model_features
from ssl_transfer.features.extraction import compute_features
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model, save_model
from ssl_transfer.probes import retrieval
from ssl_transfer.progress import duration
from ssl_transfer.scores.base import Effort, ScoreSection
from ssl_transfer.scores.clustering import Clustering
from ssl_transfer.section import Section
from ssl_transfer.tasks.sections import Task

ROOT = Path(__file__).parent.parent

COMMON = """
name: wired
seed: 0
model: {{backbone: cifar_resnet8}}
optim: {{name: adamw, lr: 1.0e-3}}
train: {{epochs: 4, precision: full, cpu_threads: 1, runs: {folder}/runs}}
score: []
"""
DIGITS = "data: {{dataset: digits, batch_size: 96, augment: digits}}\n"
PHOTOS = "data: {{dataset: folder, root: {folder}/photos, image_size: 12, batch_size: 8, augment: simclr}}\n"
TAUGHT = "teacher: {{checkpoint: {folder}/teacher}}"
BASES = {
    "simclr": COMMON + DIGITS + "task: {{kind: simclr, projection_dim: 16}}",
    "moco": COMMON + DIGITS + "task: {{kind: moco, queue_size: 128}}",
    "moco_v3": COMMON + DIGITS + "task: {{kind: moco_v3, hidden_dim: 24}}",
    "metric": COMMON + DIGITS + "task: {{kind: metric}}",
    "classify": COMMON + DIGITS + "task: {{kind: classify}}",
    "photos": COMMON + PHOTOS + "task: {{kind: simclr, projection_dim: 16}}",
    **{
        kind: COMMON + DIGITS + f"task: {{{{kind: {kind}, {TAUGHT}{more}}}}}"
        for kind, more in {
            **dict.fromkeys(("relaxed_contrastive", "relaxed_multi_similarity", "rkd", "pkt", "dark_rank"), ""),
            **dict.fromkeys(("similarity_preserving", "correlation_congruence", "fitnet", "attention_transfer"), ""),
            **dict.fromkeys(("vid", "soft_targets", "regression"), ""),
            "seed": ", queue_size: 128",
            "crd": ", negatives: 16",
        }.items()
    },
}


class Handed(Exception):
    """What a run hands to the training loop."""

    def __init__(self, task: nn.Module, batch: Callable, optimizer: torch.optim.Optimizer, **settings: Any):
        self.task, self.batch, self.optimizer = task, batch, optimizer
        self.plan, self.keeping, self.after_step = settings["plan"], settings["keeping"], settings["after_step"]
        self.progress = settings["progress"]
        with settings["autocast"]() as autocast:
            self.precision = autocast.fast_dtype if autocast._enabled else torch.float32
        self.threads = torch.get_num_threads()

    @property
    def batches(self) -> Any:
        return self.batch.__self__

    @property
    def images(self) -> Any:
        return self.batches.images

    @property
    def model(self) -> Any:
        """The student, or what is pretrained."""
        found = getattr(self.transfer, "model", None)
        return getattr(found, "model", found)

    @property
    def transfer(self) -> Any:
        return getattr(self.task, "transfer", self.task)

    @property
    def teacher(self) -> Any:
        """The network behind ``Frozen`` and the output that is taken of it."""
        return self.transfer.teachers[0].module

    def groups(self, key: str) -> list:
        return [group[key] for group in self.optimizer.param_groups]


@pytest.fixture(scope="module")
def reach(tmp_path_factory) -> Iterator[Callable[..., Handed]]:
    """A function from a base and overrides to what the run would hand to the loop."""
    folder = tmp_path_factory.mktemp("wired")
    for number in range(16):
        path = folder / "photos" / ("ash", "cedar", "elm", "yew")[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (number, 9 * number, 7)).save(path)
    torch.manual_seed(1)
    for name, head in (("teacher", HeadSpec("embedding", 24)), ("other", HeadSpec("embedding", 24))):
        spec = ModelSpec("cifar_resnet14", "default", 1, 8, (0.3,), (0.4,), head=head)
        save_model(folder / name, build_model(spec), spec)
    for name, text in BASES.items():
        (folder / f"{name}.yaml").write_text(text.format(folder=folder))

    def hand(*arguments: Any, **settings: Any) -> None:
        raise Handed(*arguments, **settings)

    def built(spec: ModelSpec, *, pretrained: bool) -> Any:
        model = build_model(spec)  # weights to be downloaded stay away
        model.asked_for_pretrained = pretrained
        return model

    @cache
    def run(base: str, *overrides: str) -> Handed:
        loaded = config.load(folder / f"{base}.yaml", [o.format(folder=folder) for o in overrides])
        with pytest.raises(Handed) as handed:
            recipe.run(loaded, stop=lambda step: False)
        return handed.value

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(recipe, "fit", hand)
        monkeypatch.setattr(building_model, "build_model", built)
        monkeypatch.setattr(augment, "require_compiler", lambda: None)  # nothing here is run by a compiled network
        yield run


class Case(NamedTuple):
    """``key`` of the base recipe is set to ``value`` (YAML); then ``look`` sees ``expected``, and not so without it."""

    base: str
    key: str
    value: str
    look: Callable[[Handed], Any]
    expected: Any
    beside: tuple[str, ...] = ()  # further overrides, with and without the one that is tested


def view(name: str) -> Callable[[Handed], Any]:
    return lambda run: getattr(run.batches.views[0], name)


def keyword(name: str) -> Callable[[Handed], Any]:
    return lambda run: run.task.loss.keywords[name]


def linears(module: nn.Module) -> list[int]:
    """The output widths of the linear layers in a module."""
    return [layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear)]


def frozen(run: Handed) -> bool:
    return not next(run.model.backbone.parameters()).requires_grad


def rate_of(run: Handed, name: str) -> float:
    parameter = run.task.get_parameter(name)
    return next(g["lr_scale"] for g in run.optimizer.param_groups if any(p is parameter for p in g["params"]))


def moved_average(run: Handed) -> float:
    """By how much of a change of the model its average follows."""
    average, model = run.keeping.also["average"], run.model
    weight, kept = (next(network.parameters()) for network in (model, average.module))
    with torch.no_grad():
        weight += 1 - (weight - kept)  # the model stands one away from its average
    before = kept.clone()
    run.after_step[0](0)
    return round((kept - before).mean().item(), 4)


def compiled(run: Handed) -> tuple[bool, bool]:
    return run.task.model._compiled_call_impl is not None, run.batches.views[0].compiled


def teacher_weights(run: Handed) -> float:
    return next(run.teacher.model.parameters()).double().sum().item()


def second_output(run: Handed) -> str:
    return run.task.teachers[1].module.name


def dropout(run: Handed) -> tuple[float, int]:
    return run.task.teacher_dropout, run.task.seed


def batch_classes(run: Handed) -> int:
    return len(run.batch(0).labels.unique())


TWO = "[{{checkpoint: {folder}/teacher}}, {{checkpoint: {folder}/other}}]"
RELATIONAL = (
    *("relaxed_contrastive", "relaxed_multi_similarity", "rkd", "pkt", "dark_rank", "similarity_preserving"),
    "correlation_congruence",
)
PRETRAINED = ("model.pretrained=true",)
NO_CROP = ("data.augment={{preset: digits, crop_scale: null}}",)
CASES = [
    Case("simclr", "name", "another", lambda run: run.keeping.folder.name, "another"),
    Case("simclr", "seed", "7", lambda run: (run.plan.seed, run.batches.seed), (7, 7)),
    *(Case(kind, "seed", "7", lambda run: run.task.seed, 7) for kind in ("classify", "crd")),
    # data
    Case("photos", "data.root", "{folder}/photos/ash", lambda run: len(run.images), 4, ("data.batch_size=4",)),
    Case("simclr", "data.split", "test", lambda run: (run.images.split, len(run.images)), ("test", 355)),
    Case("simclr", "data.train", "test", lambda run: run.images.split, "test"),
    Case("photos", "data.image_size", "10", lambda run: tuple(run.images.pixels.shape[2:]), (10, 10)),
    Case("photos", "data.resident", "false", lambda run: run.images.resident, False),
    Case("photos", "data.workers", "3", lambda run: run.images.pixels.workers, 3, ("data.resident=false",)),
    Case("photos", "data.crop_size", "6", lambda run: run.batch(0).views[0].shape[-1], 6),
    Case("photos", "data.train_classes", "3", lambda run: run.images.classes, 3),
    Case("photos", "data.labels", "none", lambda run: run.images.classes, None),
    Case("simclr", "data.images", "500", lambda run: len(run.images), 500),
    Case("simclr", "data.held_out", "100", lambda run: len(run.images), 1342),
    Case("simclr", "data.batch_size", "48", lambda run: (len(run.batch(0).index), run.plan.batch_size), (48, 48)),
    Case("simclr", "data.per_class", "48", batch_classes, 2),
    Case("relaxed_contrastive", "data.views", "3", lambda run: len(run.batch(0).views), 3),
    Case("simclr", "data.fixed_views", "2", lambda run: [run.batch(15 * e).view_id for e in range(4)], [0, 1, 0, 1]),
    Case("simclr", "data.augment", "eval", view("crop_scale"), None),
    Case("simclr", "data.augment.preset", "eval", view("crop_scale"), None),
    Case("simclr", "data.augment.crop_scale", "[0.31, 0.9]", view("crop_scale"), (0.31, 0.9)),
    Case("simclr", "data.augment.crop_ratio", "[0.9, 1.1]", view("crop_ratio"), (0.9, 1.1)),
    Case("simclr", "data.augment.crop_padding", "2", view("crop_padding"), 2, ("data.augment=eval",)),
    Case("simclr", "data.augment.flip", "0.37", view("flip"), 0.37),
    Case("simclr", "data.augment.color_jitter", "0.37", view("color_jitter"), 0.37),
    Case("simclr", "data.augment.brightness", "0.37", view("brightness"), 0.37),
    Case("simclr", "data.augment.contrast", "0.37", view("contrast"), 0.37),
    Case("simclr", "data.augment.saturation", "0.37", view("saturation"), 0.37),
    Case("simclr", "data.augment.hue", "0.37", view("hue"), 0.37),
    Case("simclr", "data.augment.grayscale", "0.37", view("grayscale"), 0.37),
    Case("simclr", "data.augment.blur", "0.37", view("blur"), 0.37),
    Case("simclr", "data.augment.blur_sigma", "[0.3, 0.4]", view("blur_sigma"), (0.3, 0.4)),
    Case("simclr", "data.augment.solarize", "0.37", view("solarize"), 0.37),
    Case("simclr", "data.augment.solarize_threshold", "0.37", view("solarize_threshold"), 0.37),
    Case("simclr", "data.augment.cutout", "3", view("cutout"), 3),
    # model
    Case("simclr", "model.backbone", "tiny_convnet", lambda run: run.model.backbone.name, "tiny_convnet"),
    Case(
        *("photos", "model.stem", "cifar", lambda run: run.model.backbone.network.conv1.stride, (1, 1)),
        ("model.backbone=resnet18",),
    ),
    Case("simclr", "model.pooling", "max", lambda run: run.model.backbone.network.global_pool.pool_type, "max"),
    Case("relaxed_contrastive", "model.embedding_dim", "20", lambda run: run.model.embedding_dim, 20),
    Case("simclr", "model.pretrained", "true", lambda run: run.model.asked_for_pretrained, True),
    Case("photos", "model.freeze", "1", frozen, True, ("model.backbone=resnet18", *PRETRAINED)),
    Case(
        *("photos", "model.drop_path", "0.3"),
        lambda run: max([m.drop_prob for m in run.model.modules() if isinstance(m, DropPath)], default=0.0),
        *(0.3, ("model.backbone=resnet18",)),
    ),
    Case("simclr", "model.mean", "[0.11]", lambda run: run.model.backbone.preprocessing.mean, (0.11,)),
    Case("simclr", "model.std", "[0.77]", lambda run: run.model.backbone.preprocessing.std, (0.77,)),
    # task
    Case("simclr", "task.temperature", "0.37", lambda run: run.task.temperature, 0.37),
    Case("simclr", "task.projection_dim", "20", lambda run: run.model.embedding_dim, 20),
    Case("simclr", "task.hidden_dim", "20", lambda run: linears(run.model.head)[0], 20),
    Case("moco", "task.temperature", "0.37", lambda run: run.task.nt_xent.temperature, 0.37),
    Case("moco", "task.projection_dim", "20", lambda run: run.model.embedding_dim, 20),
    Case("moco", "task.hidden_dim", "20", lambda run: linears(run.model.head)[0], 20),
    Case("moco", "task.head", "linear", lambda run: len(linears(run.model.head)), 1),
    Case("moco", "task.queue_size", "200", lambda run: len(run.task.nt_xent.memory_bank.rows), 200),
    Case("moco", "task.momentum", "0.37", lambda run: run.task.momentum(0), 0.37),
    Case("moco", "task.final_momentum", "1.0", lambda run: round(run.task.momentum(60), 9), 1.0),
    Case("moco", "task.symmetric", "true", lambda run: run.task.symmetric, True),
    Case("moco_v3", "task.temperature", "0.37", lambda run: run.task.temperature, 0.37),
    Case("moco_v3", "task.projection_dim", "20", lambda run: run.model.embedding_dim, 20),
    Case(
        *("moco_v3", "task.hidden_dim", "20"),
        *(lambda run: (linears(run.model.head)[0], linears(run.task.predictor)[0]), (20, 20)),
    ),
    Case("moco_v3", "task.projection_layers", "3", lambda run: len(linears(run.model.head)), 3),
    Case(
        "moco_v3",
        "task.projection_layers",
        "3",
        lambda run: type(list(run.task.predictor.modules())[-1]),
        nn.BatchNorm1d,
    ),
    Case("moco_v3", "task.momentum", "0.37", lambda run: run.task.momentum(0), 0.37),
    Case("moco_v3", "task.final_momentum", "0.995", lambda run: round(run.task.momentum(60), 9), 0.995),
    Case("metric", "task.loss", "triplet", lambda run: type(run.task.loss).__name__, "TripletMarginLoss"),
    Case("metric", "task.settings.margin", "0.37", lambda run: run.task.loss.margin, 0.37),
    Case("metric", "task.proxy_lr_scale", "37.0", lambda run: rate_of(run, "loss.proxies"), 37.0),
    Case(
        *("metric", "task.freeze_batch_norm", "true"),
        *(lambda run: {m.training for m in run.task.train().modules() if isinstance(m, nn.BatchNorm2d)}, {False}),
    ),
    Case("classify", "task.label_smoothing", "0.37", lambda run: run.task.label_smoothing, 0.37),
    Case("classify", "task.mixup", "0.37", lambda run: run.task.mixup, 0.37),
    Case("classify", "task.cutmix", "0.37", lambda run: run.task.cutmix, 0.37),
    *(
        Case(kind, f"task.{key}", value, keyword(key), expected)
        for kind in ("relaxed_contrastive", "relaxed_multi_similarity")
        for key, value, expected in (
            ("delta", "0.37", 0.37),
            ("affinity", "contextual", "contextual"),
            ("neighbors", "7", 7),
        )
    ),
    *(
        Case(kind, "task.sigma", "0.37", keyword("sigma"), 0.37, ("task.affinity=contextual",))
        for kind in ("relaxed_contrastive", "relaxed_multi_similarity")
    ),
    *(Case("relaxed_multi_similarity", f"task.{key}", "0.37", keyword(key), 0.37) for key in ("alpha", "beta")),
    Case("rkd", "task.distance_weight", "0.37", keyword("distance_weight"), 0.37),
    Case("rkd", "task.angle_weight", "0.37", keyword("angle_weight"), 0.37),
    *(Case("dark_rank", f"task.{key}", "3.7", keyword(key), 3.7) for key in ("alpha", "beta")),
    Case("dark_rank", "task.length", "3", keyword("length"), 3),
    Case("correlation_congruence", "task.gamma", "0.37", keyword("gamma"), 0.37),
    Case("correlation_congruence", "task.order", "3", keyword("order"), 3),
    Case("seed", "task.queue_size", "200", lambda run: len(run.task.queue), 200),
    Case("seed", "task.student_temperature", "0.37", lambda run: run.task.temperatures["student_temperature"], 0.37),
    Case("seed", "task.teacher_temperature", "0.37", lambda run: run.task.temperatures["teacher_temperature"], 0.37),
    Case("crd", "task.width", "20", lambda run: run.task.loss.memory_teacher.shape[1], 20),
    Case("crd", "task.negatives", "20", lambda run: run.task.negatives, 20),
    Case("crd", "task.temperature", "0.37", lambda run: run.task.loss.temperature, 0.37),
    Case("crd", "task.momentum", "0.37", lambda run: run.task.loss.momentum, 0.37),
    Case("soft_targets", "task.temperature", "3.7", lambda run: run.task.temperature, 3.7),
    *(
        Case(kind, "task.weight", "3.7", lambda run: run.transfer.weight, 3.7)
        for kind in BASES
        if kind not in ("simclr", "moco", "moco_v3", "metric", "classify", "photos", "rkd")
    ),
    *(
        case
        for kind in BASES
        if kind not in ("simclr", "moco", "moco_v3", "metric", "classify", "photos")
        for case in (
            Case(kind, "task.labels", "true", lambda run: type(run.task).__name__, "LabeledTransfer", ()),
            Case(
                *(kind, "task.cross_entropy", "0.37", lambda run: getattr(run.task, "weight", None), 0.37),
                ("task.labels=true", *(("task.teacher.output=features",) if kind == "soft_targets" else ())),
            ),
        )
        if (kind, case.key) != ("soft_targets", "task.labels")
    ),
    Case(
        *("soft_targets", "task.labels", "true", lambda run: type(run.task).__name__, "LabeledTransfer"),
        ("task.teacher.output=features",),
    ),
    # teacher
    Case("rkd", "task.teacher.checkpoint", "{folder}/other", teacher_weights, None),
    Case("rkd", "task.teacher.output", "embedding", lambda run: run.teacher.name, "embedding"),
    Case("rkd", "task.teacher", TWO, lambda run: len(run.task.teachers), 2),
    Case("regression", "task.teacher", TWO, lambda run: len(run.task.layers), 2),
    Case(
        *("regression", "task.teacher.1.weight", "3.0", lambda run: run.task.shares, [0.25, 0.75]),
        (f"task.teacher={TWO}",),
    ),
    Case(
        "pkt",
        "task.teacher.1.weight",
        "3.0",
        lambda run: run.task.shares(0),
        {0: 0.25, 1: 0.75},
        (f"task.teacher={TWO}",),
    ),
    Case("dark_rank", "task.teacher.1.output", "embedding", second_output, "embedding", (f"task.teacher={TWO}",)),
    *(
        Case(kind, "task.teacher_dropout", "0.37", dropout, (0.37, 5), ("seed=5", f"task.teacher={TWO}"))
        for kind in RELATIONAL
    ),
    # optim
    Case("simclr", "optim.name", "sgd", lambda run: type(run.optimizer).__name__, "SGD"),
    Case("simclr", "optim.lr", "0.37", lambda run: run.plan.learning_rate(0), 0.37),
    Case("simclr", "optim.weight_decay", "0.37", lambda run: max(run.groups("weight_decay")), 0.37),
    Case("simclr", "optim.momentum", "0.37", lambda run: set(run.groups("momentum")), {0.37}, ("optim.name=sgd",)),
    Case(
        *("simclr", "optim.decay_all", "true", lambda run: min(run.groups("weight_decay")), 0.37),
        ("optim.weight_decay=0.37",),
    ),
    Case(
        *("simclr", "optim.lars", "{{trust_coefficient: 0.37}}", lambda run: set(run.groups("trust_coeff")), {0.37}),
        ("optim.name=lars",),
    ),
    Case(
        *("simclr", "optim.lars.trust_coefficient", "0.37", lambda run: set(run.groups("trust_coeff")), {0.37}),
        ("optim.name=lars",),
    ),
    Case(
        *("simclr", "optim.lars.trust_clip", "true", lambda run: set(run.groups("trust_clip")), {True}),
        ("optim.name=lars",),
    ),
    Case("simclr", "optim.schedule", "constant", lambda run: run.plan.learning_rate(59), 1e-3),
    Case(
        *("simclr", "optim.milestones", "[2, 3]"),
        lambda run: [round(1e3 * run.plan.learning_rate(step), 6) for step in (29, 30, 44, 45)],
        *([1.0, 0.1, 0.1, 0.01], ("optim.schedule=multi_step", "optim.milestones=[1]")),
    ),
    Case("simclr", "optim.warmup_epochs", "2", lambda run: round(run.plan.learning_rate(0) / 1e-3 * 30, 6), 1.0),
    Case("simclr", "optim.final_lr", "5.0e-4", lambda run: round(run.plan.learning_rate(60), 9), 5e-4),
    # train
    Case("simclr", "train.epochs", "6", lambda run: run.plan.total_steps, 90),
    Case("simclr", "train.steps", "7", lambda run: (run.plan.total_steps, run.plan.learning_rate(60)), (7, 0.0)),
    Case("simclr", "train.precision", "bf16", lambda run: run.precision, torch.bfloat16),
    Case("simclr", "train.compile", "true", compiled, (True, True)),
    Case("simclr", "train.micro_batch_size", "48", lambda run: run.task.micro_batch_size, 48),
    *(
        Case(kind, "train.micro_batch_size", "48", lambda run: run.transfer.micro_batch_size, 48)
        for kind in BASES
        if kind not in ("simclr", "photos", "fitnet", "attention_transfer", "vid")  # maps are compared image by image
    ),
    Case("simclr", "train.clip_norm", "0.37", lambda run: run.plan.clip_norm, 0.37),
    Case("simclr", "train.bf16_gradients", "true", lambda run: run.plan.bf16_gradients, True),
    Case("simclr", "train.ema", "0.75", moved_average, 0.25, ("train.ema=0.5",)),
    Case("simclr", "train.checkpoint_every", "3", lambda run: run.keeping.checkpoint_every, 45),
    Case("simclr", "train.checkpoint_minutes", "0.5", lambda run: run.keeping.checkpoint_seconds, 30.0),
    Case("simclr", "train.log_every", "37", lambda run: run.keeping.log_every, 37),
    Case("simclr", "train.cpu_threads", "2", lambda run: run.threads, 2),
    Case("simclr", "train.runs", "{folder}/elsewhere", lambda run: run.keeping.folder.parent.name, "elsewhere"),
]
# What cannot be seen where the loop begins, and the test that sees it.
ELSEWHERE = {
    "data.dataset": "tests/data/sources/test_datasets.py::test_an_unknown_name_gets_the_nearest",
    "data.download": "tests/building/test_data.py::test_all_that_a_recipe_says_of_its_images_reaches_their_reader",
    "data.test": "tests/building/test_data.py::"
    "test_what_is_held_out_is_learned_from_by_nobody_and_can_be_scored_instead_of_the_test_split",
    "data.image": "tests/test_recipe_data.py::test_which_image_of_a_sample_is_meant_is_for_the_recipe_to_say",
    "data.on_error": "tests/test_recipe_data.py::test_a_broken_photo_is_named_and_may_be_skipped",
    "data.unchecked": "tests/test_recipe_data.py::test_images_may_stay_unchecked_until_they_are_met",
    "train.sync_batch_norm": "tests/test_wiring.py::test_batch_norm_is_synchronized_where_the_recipe_says_so",
    "train.tracker": "tests/test_wiring.py::test_a_tracker_is_handed_to_accelerate",
    "task.teacher.recipe": "tests/test_recipe.py::test_a_run_does_not_depend_on_the_number_of_processes",
    "task.teacher.timm": "tests/teachers/test_loading.py::test_a_timm_teacher_brings_its_own_size_and_normalization",
    "task.teacher.zoo": "tests/teachers/test_loading.py::"
    "test_what_comes_with_the_package_opens_in_one_word_and_says_how_to_make_it_again",
    "task.teacher.torchvision": "tests/teachers/test_loading.py::test_torchvision_weights_bring_their_size",
    **{
        f"task.teacher.{key}": "tests/teachers/test_loading.py::test_a_file_teacher_reports_what_it_matched"
        for key in ("file", "format", "backbone", "stem", "prefix")
    },
    **{
        f"task.teacher.{key}": "tests/teachers/test_loading.py::test_the_recipe_can_change_size_and_normalization"
        for key in ("mean", "std", "image_size")
    },
    "task.teacher.weight": "tests/test_wiring.py::test_a_value_reaches_what_it_names",  # as that of one in a list
    "task.teacher.memory": "tests/teachers/test_memory.py::"
    "test_a_run_that_remembers_ends_with_the_bits_of_one_that_does_not",
    "score": "tests/scores/test_wiring.py::test_a_value_reaches_the_probe",
}


def keys_of(section: type[Section], path: str) -> Iterator[str]:
    """The dotted keys of a section and those below it, but for a teacher's recipe, which is one of these again."""
    for name, field in section.model_fields.items():
        yield f"{path}{name}"
        for inner in sections_in(field.annotation):
            if not issubclass(inner, Recipe | ScoreSection):  # a kind of score is tested in tests/scores/test_wiring.py
                yield from keys_of(inner, f"{path}{name}.")


def sections_in(annotation: Any) -> set[type[Section]]:
    """The sections that a value, or an item of a list of values, may be."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {annotation}
    return {found for inner in get_args(annotation) for found in sections_in(inner)}


def test_every_key_of_the_schema_has_a_case():
    tasks = get_args(get_args(Task)[0])
    kinds = {get_args(section.model_fields["kind"].annotation)[0]: section for section in tasks}
    assert kinds.keys() == BASES.keys() - {"photos"}
    plain = {key for key in keys_of(Recipe, "") if not key.startswith("task") and "." in key or key in ("name", "seed")}
    sections = {"data", "model", "optim", "train"}
    cased = {case.key for case in CASES} | ELSEWHERE.keys() | sections
    assert plain - cased == set()
    for kind, section in kinds.items():
        own = {case.key for case in CASES if case.base == kind} | ELSEWHERE.keys()
        own |= {case.key for case in CASES if case.key.startswith("task.teacher")}
        found = {key for key in keys_of(section, "task.") if key not in ("task.kind", "task.teacher")}
        settings = {"task.settings"} if any(key.startswith("task.settings.") for key in own) else set()
        assert found - own - settings == set(), kind


def test_what_is_tested_elsewhere_is():
    for key, test in ELSEWHERE.items():
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(), key


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.base}-{case.key}")
def test_a_value_reaches_what_it_names(reach, case):
    without = case.look(reach(case.base, *case.beside))
    found = case.look(reach(case.base, *case.beside, f"{case.key}={case.value}"))
    assert found != without
    if case.key != "task.teacher.checkpoint":
        assert found == case.expected


def test_a_monitor_looks_at_the_model_and_at_what_is_held_out(reach):
    run = reach("simclr", "seed=7", "data.held_out=100", "score=[{{kind: monitor, every: 2, images: 50, k: 3}}]")
    (watch,) = run.after_step
    assert (watch.every, watch.seed, watch.k, len(watch.images)) == (2 * (1342 // 96), 7, 3, 50)
    assert watch.images.split == "held out of train" and watch.views is run.batches.views and watch.model() is run.model


def test_recall_during_training_is_of_the_test_images(reach):
    run = reach("metric", "score=[{{kind: best_on_test, every: 2, k: [1]}}]")
    (watch,) = run.after_step
    test = load_images("digits", ROOT, split="test")
    embeddings = compute_features(run.model.eval(), test, layer="output")
    expected = retrieval(embeddings, test.labels, k=[1], metric="euclidean").recall[1]
    assert watch(14) == {} and list(watch(29).values()) == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("score", "products", "said"),
    [
        ("[]", None, None),
        ("[{{kind: monitor, every: 1}}]", None, None),
        ("[{{kind: best_on_test, every: 2, k: [1]}}]", None, None),
        ("[{{kind: monitor, every: 1}}, {{kind: knn, k: [5]}}]", 2 * 355, "1 measure of"),
        ("[{{kind: knn, k: [5]}}, {{kind: linear_probe}}]", 2 * 355 + 2500 * 10, "2 measures of"),
    ],
)
def test_while_it_trains_a_run_says_what_scoring_will_take(reach, monkeypatch, score, products, said):
    run = reach("simclr", f"score={score}")
    monkeypatch.setattr(recipe, "seconds_of_multiplying", lambda device: 1e-7)
    words = run.progress.afterwards(2.5)
    if said is None:
        assert words == ""
    else:
        # The time of a view in a step for every image that is learned from or scored; the products of the training
        # images' numbers: the features of the student and of its untrained twin, and the pixels, 64 of each.
        seconds = (1442 + 355) * 2.5 / (2 * 96) + 1442 * 3 * 64 * products * 1e-7
        assert f"about {duration(seconds)} of scoring: the features of 1,797 images and {said} each model" in words


@pytest.mark.parametrize(("pixels", "widths"), [(432, [64, 64, 432]), (431, [64, 64])])
def test_a_measure_is_estimated_from_what_it_will_see(reach, monkeypatch, pixels, widths):
    efforts: list[Effort] = []
    monkeypatch.setattr(Clustering, "seconds", lambda kind, effort: efforts.append(effort) or 0.0)
    monkeypatch.setattr(recipe, "seconds_of_multiplying", lambda device: 1e-7)
    monkeypatch.setattr(model_features, "RAW_PIXELS", pixels)  # photographs of 3 x 12 x 12
    held_out = "data.held_out=4", "data.test=held_out", "score=[{{kind: clustering}}]"
    reach("photos", *held_out).progress.afterwards(2.5)
    # Student, untrained student, pixels; of a view's share of a step, a third is the student's forward pass.
    assert [asdict(effort) for effort in efforts] == [
        {"n_train": 12, "n_test": 4, "classes": 4, "width": width, "multiply": 1e-7, "image": pytest.approx(2.5 / 48)}
        for width in widths
    ]


def test_a_teacher_is_not_scored_where_it_is_trained(reach):
    teacher = "task.teacher={{recipe: {folder}/simclr.yaml}}", "task.teacher.recipe.score=[{{kind: knn, k: [5]}}]"
    run = reach("relaxed_contrastive", *teacher)
    assert type(run.task).__name__ == "SimCLR" and run.progress.afterwards(2.5) == ""


@pytest.mark.parametrize("asked", [True, False])
def test_batch_norm_is_synchronized_where_the_recipe_says_so(reach, tmp_path, monkeypatch, asked):
    synchronized = []
    monkeypatch.setattr(recipe, "synchronize_batch_norm", synchronized.append)
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda accelerator: 2))
    run = reach("simclr", f"train.sync_batch_norm={str(asked).lower()}", f"train.runs={tmp_path}")
    assert synchronized == ([run.task] if asked else [])


def test_a_tracker_is_handed_to_accelerate(tmp_path, recipes, monkeypatch):
    given = config.load(recipes / "digits" / "simclr.yaml", ["train.tracker=wandb", f"train.runs={tmp_path}"])
    seen = {}

    def start(**settings):
        seen.update(settings)
        raise Handed(
            *3 * [None], plan=None, keeping=None, after_step=None, autocast=lambda: torch.autocast("cpu"), progress=None
        )

    monkeypatch.setattr(context, "find_spec", lambda name: name)
    monkeypatch.setattr(context, "Accelerator", start)
    with pytest.raises(Handed):
        recipe.run(given)
    assert (seen["log_with"], seen["project_dir"]) == ("wandb", str(tmp_path))
