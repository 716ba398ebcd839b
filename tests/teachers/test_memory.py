import os

import pytest
import torch
from torch import nn

from ssl_transfer import recipe
from ssl_transfer.data import Augment, Batches, Images
from ssl_transfer.models import Frozen
from ssl_transfer.teachers import memory as teacher_memory
from ssl_transfer.teachers.memory import TeacherMemory, with_teachers
from ssl_transfer.training.engine import Interrupted
from tests.test_recipe import assert_close, launch, load, losses, weights

VIEWS = [Augment(8, crop_scale=(0.3, 1.0), flip=0.5), Augment(8, crop_scale=(0.3, 1.0))]


def memory(root, precision="float32", key=None, **shape):
    shape = dict(images=30, view_ids=3, views=2, width=5) | shape
    return TeacherMemory(root, key or {"teacher": "a"}, **shape, precision=precision)


@pytest.fixture
def batches():
    pixels = torch.randint(256, (30, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, None, None, "noise", "train", (0.5,) * 3, (0.3,) * 3)
    return Batches(images, VIEWS, seed=0, batch_size=8, fixed_views=3)


@pytest.fixture
def teacher():
    """A network that counts the images it sees."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)).eval()
    network.seen = 0

    def count(module, inputs):
        module.seen += len(inputs[0])

    network.register_forward_pre_hook(count)
    return network


def rows(n, seed=0):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def test_what_is_written_is_read_in_the_order_of_the_views(tmp_path):
    kept, index = memory(tmp_path), torch.tensor([4, 29, 0])
    kept.write(1, index, rows(6))
    assert torch.equal(kept.read(1, index), rows(6))
    assert torch.equal(kept.read(1, index.flip(0)), rows(6).unflatten(0, (2, 3)).flip(1).flatten(0, 1))
    assert memory(tmp_path).has(1, index).all()
    assert not kept.has(2, index).any() and not kept.has(1, torch.tensor([1, 2])).any()


def test_half_precision_rounds_to_the_nearest(tmp_path):
    kept = memory(tmp_path, "float16")
    kept.write(0, torch.arange(3), rows(6))
    assert torch.equal(kept.read(0, torch.arange(3)), rows(6).half().float())


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_what_half_precision_cannot_hold_is_refused_and_not_kept(tmp_path, value):
    kept, embeddings = memory(tmp_path, "float16"), rows(6)
    embeddings[3, 2] = value
    with pytest.raises(ValueError, match="not finite in float16 .*memory=float32"):
        kept.write(0, torch.arange(3), embeddings)
    assert not kept.has(0, torch.arange(3)).any()


def test_zeros_are_a_value_like_any_other(tmp_path):
    kept = memory(tmp_path)
    kept.write(0, torch.tensor([7]), torch.zeros(2, 5))
    assert kept.has(0, torch.tensor([7, 8])).tolist() == [True, False]


def test_a_row_that_was_written_in_part_is_missing(tmp_path):
    kept, index = memory(tmp_path), torch.arange(30)
    kept.write(0, index, rows(60))
    path = kept.folder / "0.bin"
    content = bytearray(path.read_bytes())
    size = len(content) // 30
    for place in (3 * size, 9 * size + 4, 21 * size - 1):  # a checksum, a first and a last byte
        content[place] ^= 1
    content[25 * size : 26 * size] = bytes(size)  # a page that never reached the disk
    path.write_bytes(content)
    assert memory(tmp_path).has(0, index).logical_not().nonzero()[:, 0].tolist() == [3, 9, 20, 25]


def test_anything_that_decides_an_embedding_has_its_own_folder(tmp_path):
    kept = memory(tmp_path)
    others = [
        memory(tmp_path, key={"teacher": "b"}),
        memory(tmp_path, "float16"),
        memory(tmp_path, width=6),
        memory(tmp_path, views=1),
    ]
    assert len({kept.folder, *(other.folder for other in others)}) == 5
    assert memory(tmp_path, view_ids=1).folder == kept.folder  # fewer of the same


def test_the_key_is_written_once(tmp_path):
    key = memory(tmp_path).folder / "key.json"
    written = key.stat().st_ino  # another file would take its place
    memory(tmp_path)
    assert key.stat().st_ino == written


def test_files_that_do_not_fit_are_refused_before_they_are_made(tmp_path, monkeypatch):
    usage = teacher_memory.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(teacher_memory.shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(ValueError, match="memory needs .* GB .* are free: take fewer data.fixed_views"):
        memory(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_remembered_embeddings_are_the_teachers_of_every_step_and_it_never_runs_again(tmp_path, batches, teacher):
    kept = memory(tmp_path)
    assert kept.fill(batches, teacher) == teacher.seen == 3 * 30 * 2
    remembered = with_teachers(batches, [kept])
    for step in (0, 1, 2, 3, 5, 9, 10, 40):
        batch = remembered(step)
        with torch.no_grad():
            torch.testing.assert_close(batch.remembered[0], teacher(torch.cat(batch.views)), rtol=1e-6, atol=1e-6)
    teacher.seen = 0
    assert memory(tmp_path).fill(batches, teacher) == teacher.seen == 0


def test_a_whole_file_is_not_looked_through_again_and_a_damaged_row_is_met_when_it_is_read(tmp_path, batches, teacher):
    kept = memory(tmp_path)
    kept.fill(batches, teacher)
    kept.mark_whole()
    with (kept.folder / "1.bin").open("r+b") as file:
        file.seek(8)
        file.write(b"other")  # into the first row
    again, seen = memory(tmp_path), teacher.seen
    assert again.fill(batches, teacher) == 0
    again.read(1, torch.arange(1, 30))
    with pytest.raises(ValueError, match=r"1\.bin is damaged: run the same command again"):
        again.read(1, torch.arange(5))
    assert memory(tmp_path).fill(batches, teacher) == teacher.seen - seen > 0  # what is damaged, and no more
    expected = kept.read(1, torch.arange(30))
    assert expected.isfinite().all() and memory(tmp_path).has(1, torch.arange(30)).all()


def test_view_ids_come_round_again_for_each_image(batches):
    def views_of_image(epoch, image):
        for step in range(epoch * 3, epoch * 3 + 3):
            batch = batches.batch(step)
            place = (batch.index == image).nonzero()
            if len(place):
                return batch.view_id, torch.stack([view[place[0, 0]] for view in batch.views])

    found = [views_of_image(epoch, 11) for epoch in range(12)]
    seen = {}
    for epoch, pair in enumerate(found):
        if pair is None:  # dropped with the remainder of that epoch
            continue
        assert pair[0] == epoch % 3
        assert torch.equal(seen.setdefault(pair[0], pair[1]), pair[1])
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1])


def test_shares_of_several_processes_fill_the_whole_and_an_interrupted_one_goes_on(tmp_path, batches, teacher):
    def stop():
        if teacher.seen > 20:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        memory(tmp_path).fill(batches, teacher, share=(1, 4), before_each=stop)
    done = teacher.seen
    assert 20 < done < 3 * 8 * 2
    seen = sum(memory(tmp_path).fill(batches, teacher, share=(which, 4)) for which in range(4))
    assert done + seen == 3 * 30 * 2
    assert all(memory(tmp_path).has(view_id, torch.arange(30)).all() for view_id in range(3))


# 6 steps an epoch: views come round again. A Gaussian grows the rounding of two processes less than the default does.
FIXED = ("data.fixed_views=2", "data.batch_size=240", "train.steps=15", "task.affinity=gaussian", "task.sigma=1.0")


@pytest.fixture(scope="module")
def without_memory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without")
    recipe.run(load(folder, *FIXED, "task.teacher.memory=none"))
    assert not (folder / "teacher-memory").exists()
    return folder / "digits-transfer"


@pytest.mark.slow
def test_a_run_that_remembers_ends_with_the_bits_of_one_that_does_not(without_memory, tmp_path, capsys):
    with pytest.raises(Interrupted):
        recipe.run(load(tmp_path, *FIXED, "task.teacher.memory=float32"), stop=lambda step: step == 13)
    recipe.run(load(tmp_path, *FIXED, "task.teacher.memory=float32"))
    found = weights(tmp_path / "digits-transfer")
    assert all(torch.equal(weight, found[name]) for name, weight in weights(without_memory).items())
    assert torch.equal(losses(tmp_path / "digits-transfer"), losses(without_memory))
    said = " ".join(capsys.readouterr().out.split())
    assert "the teacher saw 5,768 views; without memory it would see 7,200 in the whole run" in said
    assert "the teacher saw 0 views" in said  # when it went on


@pytest.mark.slow
def test_memory_in_half_precision_changes_a_run_by_rounding_alone(without_memory, tmp_path):
    recipe.run(load(tmp_path, *FIXED))
    first, expected = losses(tmp_path / "digits-transfer"), losses(without_memory)
    torch.testing.assert_close(first[:3], expected[:3], rtol=1e-3, atol=0)
    torch.testing.assert_close(first, expected, rtol=2e-2, atol=0)  # rounding, grown by twenty steps


@pytest.mark.slow
def test_a_remembered_teacher_is_no_part_of_what_is_trained(tmp_path, monkeypatch):
    frozen, fit = [], recipe.fit

    def watch(task, *arguments, **options):
        frozen.append([name for name, part in task.named_modules() if isinstance(part, Frozen)])
        return fit(task, *arguments, **options)

    monkeypatch.setattr(recipe, "fit", watch)
    recipe.run(load(tmp_path, *FIXED, "train.steps=1"))
    recipe.run(load(tmp_path, *FIXED, "train.steps=1", "name=asking", "task.teacher.memory=none"))
    assert frozen == [[], [], ["teachers.0"]]  # of the teacher's own training, of the student's, of one that asks it


@pytest.mark.slow
def test_two_processes_share_a_memory(without_memory, tmp_path, free_port):
    launch(2, free_port, tmp_path, *FIXED, "task.teacher.memory=float32")
    assert_close(tmp_path / "digits-transfer", without_memory)
    (folder,) = (tmp_path / "teacher-memory").iterdir()
    assert sorted(os.listdir(folder)) == ["0.bin", "0.whole", "1.bin", "1.whole", "key.json"]
