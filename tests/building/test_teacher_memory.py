"""When a teacher is remembered, under what key, and that a batch then brings what the teacher makes of its views."""

from dataclasses import replace

import pytest
import torch

from ssl_transfer import config, progress
from ssl_transfer.building.teacher_memory import _key, batches_with_teachers, remembered_teachers
from ssl_transfer.context import Context
from ssl_transfer.data import Augment, Batches, Images
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model
from ssl_transfer.training.engine import Interrupted
from tests.test_recipe import TRANSFER

SPEC = ModelSpec("tiny_convnet", "default", 3, 32, (0.5,) * 3, (0.3,) * 3, head=HeadSpec("projection", 6))


def recipe_of(*overrides: str) -> config.Recipe:
    return config.load(TRANSFER, ["data.fixed_views=3", "train.cpu_threads=1", "train.precision=full", *overrides])


def batches_of(images: int = 30, **settings: object) -> Batches:
    pixels = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noise = Images(pixels, None, None, "noise", "train", (0.5,) * 3, (0.3,) * 3)
    views = [Augment(32, flip=0.5), Augment(32, crop_scale=(0.5, 1.0))]
    return Batches(noise, **{"views": views, "seed": 0, "batch_size": 8, "fixed_views": 3} | settings)


def network(spec: ModelSpec = SPEC, seed: int = 0) -> EmbeddingModel:
    torch.manual_seed(seed)
    return build_model(spec).eval()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [0]),
        (["data.fixed_views=null"], []),
        (["task.teacher.memory=none"], []),
        (["task.teacher.memory=float32"], [0]),
        (["task.kind=fitnet"], []),  # maps are too large
        (["task={kind: simclr}"], []),
        (["task.teacher=[{timm: a, memory: none}, {timm: b}, {timm: c, memory: float32}]"], [1, 2]),
    ],
)
def test_a_teacher_is_remembered_where_views_come_round_again_and_embeddings_are_compared(overrides, expected):
    assert remembered_teachers(recipe_of(*overrides)) == expected


@pytest.mark.parametrize(("steps", "files"), [(5, 2), (7, 3), (40, 3)])  # three steps an epoch
def test_a_batch_brings_what_the_teacher_makes_of_its_views(tmp_path, capsys, steps, files):
    given = recipe_of("task.teacher.memory=float32", "task.teacher.output=projection", f"train.runs={tmp_path}")
    teacher, batches, asked = network(), batches_of(), []
    taught = batches_with_teachers(given, [teacher], batches, steps, Context.start(given), lambda: asked.append(None))
    for step in range(0, steps, 2):
        batch = taught(step)
        assert torch.equal(batch.views[1], batches.batch(step).views[1])
        with torch.no_grad():
            torch.testing.assert_close(batch.remembered[0], teacher(torch.cat(batch.views)), rtol=1e-5, atol=1e-6)
    (folder,) = (tmp_path / "teacher-memory").iterdir()
    assert len(list(folder.glob("*.bin"))) == files and asked
    said = " ".join(capsys.readouterr().out.split())
    assert f"remembering the teacher: 0.0 MB in {folder}" in said
    seen = files * 30 * 2
    assert f"the teacher saw {seen} views; without memory it would see {steps * 8 * 2} in the whole run" in said


@pytest.mark.parametrize("added", ["behind", "before"])
def test_images_that_were_added_behind_the_others_alone_are_shown_to_the_teacher(tmp_path, capsys, added):
    given = recipe_of("task.teacher.memory=float32", "task.teacher.output=projection", f"train.runs={tmp_path}")
    grown, context = batches_of(40), Context.start(given)
    old = torch.arange(30) + (10 if added == "before" else 0)
    first = Batches(grown.images.subset(old), grown.views, seed=0, batch_size=8, fixed_views=3)
    seen = []
    for batches in (first, grown):
        taught = batches_with_teachers(given, [network()], batches, 40, context, lambda: None)
        said = " ".join(capsys.readouterr().out.split())
        seen.append(int(said.split("the teacher saw ")[1].split()[0]))
    again = {"behind": 16, "before": 40}[added]  # whole batches in which an image is new
    assert seen == [30 * 2 * 3, again * 2 * 3] and len(list((tmp_path / "teacher-memory").iterdir())) == 2
    for step in (0, 4, 7, 14):
        batch = taught(step)
        with torch.no_grad():
            torch.testing.assert_close(batch.remembered[0], network()(torch.cat(batch.views)), rtol=1e-5, atol=1e-6)


def test_a_teacher_answers_in_the_arithmetic_of_the_run_and_is_kept_in_half_precision(tmp_path):
    given = recipe_of("train.precision=bf16", f"train.runs={tmp_path}")
    teacher, batches, context = network(), batches_of(), Context.start(given)
    batch = batches_with_teachers(given, [teacher], batches, 2, context, lambda: None)(0)
    with torch.no_grad(), context.autocast():
        expected = teacher.features(torch.cat(batch.views))
    assert expected.dtype == torch.bfloat16 and not torch.equal(expected, teacher.features(torch.cat(batch.views)))
    assert torch.equal(batch.remembered[0], expected.float().half().float())


def test_each_of_several_teachers_has_a_memory_of_its_own_or_none(tmp_path, capsys):
    teachers = "task.teacher=[{timm: a, output: projection, memory: float32}, {timm: b, memory: none}, {timm: c}]"
    given, batches = recipe_of(teachers, f"train.runs={tmp_path}"), batches_of()
    models = [network(), network(seed=1), network(seed=2)]
    batch = batches_with_teachers(given, models, batches, 2, Context.start(given), lambda: None)(1)
    with torch.no_grad():
        views = torch.cat(batch.views)
        torch.testing.assert_close(batch.remembered[0], models[0](views), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(batch.remembered[2], models[2].features(views), rtol=1e-3, atol=1e-3)
    assert batch.remembered[1] is None and len(batch.remembered) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "remembering teacher 1: " in said and "teacher 3 saw 60 views" in said and "teacher 2" not in said


def test_how_many_views_the_teacher_saw_is_shown_while_it_looks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_FIRST_LINE", 0)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    given = recipe_of(f"train.runs={tmp_path}")
    batches_with_teachers(given, [network()], batches_of(), 6, Context.start(given), lambda: None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("remembering the teacher  ")]
    assert [line.split("  ")[1] for line in lines] == [
        f"{seen}/120 views" for seen in (16, 32, 48, 60, 76, 92, 108, 120)
    ]
    assert lines[0].endswith(" left")


def test_what_was_computed_before_a_stop_stays(tmp_path, capsys):
    given = recipe_of(f"train.runs={tmp_path}")

    def fill(check_stop):
        batches_with_teachers(given, [network()], batches_of(), 3, Context.start(given), check_stop)

    calls = iter(range(10))

    def stop():
        if next(calls) == 2:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        fill(stop)
    fill(lambda: None)
    assert f"the teacher saw {(30 - 16) * 2} views" in " ".join(capsys.readouterr().out.split())


def test_the_key_holds_all_that_decides_an_embedding_and_nothing_else():
    """Its words are written out: by other ones nobody would find again what is already on disk."""

    def key(*overrides: str, teacher: EmbeddingModel | None = None, **settings: object) -> dict[str, object]:
        given = recipe_of(*overrides)
        return _key(given, given.teachers[0], teacher or network(), batches_of(**settings), Context.start(given))

    plain = key()
    assert plain.keys() == {
        *("data", "image", "augmentation", "seed", "teacher", "structure", "network", "preprocessing", "output"),
        *("arithmetic", "version"),
    }
    assert plain == key("data.batch_size=96", "optim.lr=1.0", "task.delta=3.0", batch_size=6)
    assert plain["image"] == [3, 32, 32]

    def differs(other: dict[str, object]) -> set[str]:
        return {name for name in plain if plain[name] != other[name]}

    assert differs(key(images=31)) == {"data"}
    assert differs(key(views=[Augment(32, flip=0.5)] * 2)) == {"augmentation"}
    assert differs(key("seed=1")) == {"seed"}
    assert differs(key("task.teacher.output=projection")) == {"output"}
    assert differs(key("train.precision=bf16")) == {"arithmetic"}
    assert differs(key(teacher=network(seed=1))) == {"teacher"}
    other = replace(SPEC, mean=(0.4,) * 3)
    assert differs(key(teacher=network(other))) >= {"preprocessing"}


def test_a_network_of_the_same_weights_and_another_stride_is_another_teacher():
    recipe, batches = recipe_of(), batches_of()

    def key(stem: str) -> dict[str, object]:
        teacher = network(ModelSpec("mobilenetv3_small_100", stem, 3, 32, (0.5,) * 3, (0.3,) * 3))
        return _key(recipe, recipe.teachers[0], teacher, batches, Context.start(recipe))

    plain, small = key("default"), key("cifar")
    assert plain == key("default")
    assert {name for name in plain if plain[name] != small[name]} == {"structure"}
