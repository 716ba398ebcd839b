import subprocess
import sys

import pytest
import torch

from ssl_transfer.data import batches as batches_module
from ssl_transfer.data.batches import Batches
from ssl_transfer.data.images import Images
from ssl_transfer.data.views.augment import Augment

VIEWS = [Augment(12, crop_scale=(0.3, 1.0), flip=0.5, color_jitter=0.8, contrast=0.4, hue=0.1), Augment(12)]


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (50, 3, 12, 12), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(50) % 7, 7, "noise", "train", (0.5,) * 3, (0.3,) * 3)


def test_shares_of_any_number_of_processes_make_the_same_global_batch(images):
    for step in (0, 3, 9):
        whole = Batches(images, VIEWS, seed=0, batch_size=12).batch(step)
        for world in (2, 3, 12):
            shares = [
                Batches(images, VIEWS, seed=0, batch_size=12, rank=rank, world=world).batch(step)
                for rank in range(world)
            ]
            assert torch.equal(torch.cat([share.index for share in shares]), whole.index)
            assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)
            for view in range(2):
                assert torch.equal(torch.cat([share.views[view] for share in shares]), whole.views[view])


def test_a_batch_does_not_depend_on_those_asked_for_before(images):
    walked = Batches(images, VIEWS, seed=0, batch_size=12)
    steps = [walked.batch(step) for step in range(10)]
    jumped = Batches(images, VIEWS, seed=0, batch_size=12)
    for step in (9, 2, 7, 2):
        batch = jumped.batch(step)
        assert torch.equal(batch.index, steps[step].index) and batch.step == step
        assert torch.equal(batch.views[0], steps[step].views[0])


def test_an_epoch_visits_no_image_twice_and_each_epoch_has_its_own_order(images):
    batches = Batches(images, VIEWS, seed=0, batch_size=12)
    assert batches.steps_per_epoch == 4
    first, second = (torch.cat([batches.batch(step).index for step in range(start, start + 4)]) for start in (0, 4))
    assert len(first.unique()) == len(second.unique()) == 48
    assert not torch.equal(first, second)


def test_without_drop_last_an_epoch_visits_every_image_once(images):
    batches = Batches(images, VIEWS, seed=0, batch_size=12, drop_last=False)
    visited = torch.cat([batches.batch(step).index for step in range(batches.steps_per_epoch)])
    assert torch.equal(visited.sort().values, torch.arange(50))


def test_of_more_images_than_are_sorted_the_same_holds(images, monkeypatch):
    monkeypatch.setattr(batches_module, "SORTED", 49)
    settings = {"seed": 0, "batch_size": 12, "drop_last": False}
    whole = Batches(images, VIEWS, **settings)
    visited = [whole.batch(step).index for step in range(10)]
    for epoch in (visited[:5], visited[5:]):
        assert torch.equal(torch.cat(epoch).sort().values, torch.arange(50))
    assert not torch.equal(visited[0], visited[5])
    shares = [Batches(images, VIEWS, **settings, rank=rank, world=2).batch(7).index for rank in range(2)]
    assert torch.equal(torch.cat(shares), visited[7])


def test_labels_and_plain_views_belong_to_the_index(images):
    batch = Batches(images, VIEWS, seed=0, batch_size=12).batch(6)
    assert torch.equal(batch.labels, images.labels[batch.index])
    torch.testing.assert_close(batch.views[1], images.pixels[batch.index] / 255)


def test_two_views_of_one_kind_differ_and_change_with_the_epoch(images):
    batches = Batches(images.subset(torch.arange(12)), [VIEWS[0]] * 2, seed=0, batch_size=12)
    now, later = batches.batch(0), batches.batch(1)
    assert not torch.equal(now.views[0], now.views[1])
    order, later_order = now.index.argsort(), later.index.argsort()
    assert not torch.equal(now.views[0][order], later.views[0][later_order])


def test_images_without_labels_give_batches_without_labels(images):
    unlabeled = Images(images.pixels, None, None, "noise", "train", images.mean, images.std)
    assert Batches(unlabeled, VIEWS, seed=0, batch_size=10).batch(0).labels is None


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(batch_size=10, world=3), "batch_size 10 does not split over 3 processes"),
        (dict(batch_size=51), "batch_size 51 is more than the 50 images of noise train"),
        (dict(batch_size=16, world=4, drop_last=False), "last batch of 2 images does not split over 4"),
    ],
)
def test_an_impossible_batch_size_is_refused_with_both_numbers(images, options, message):
    with pytest.raises(ValueError, match=message):
        Batches(images, VIEWS, seed=0, **options)


def test_presets_load_without_torch():
    code = "import sys, ssl_transfer.catalog.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, to see whether it is waited for")
def test_a_batch_is_made_without_waiting_for_the_device(images):
    batches = Batches(images.to("cuda"), VIEWS, seed=0, batch_size=12)
    batches.batch(0)  # the first launch of a kernel may wait
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = batches.batch(1)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    expected = Batches(images, VIEWS, seed=0, batch_size=12).batch(1)
    assert torch.equal(batch.index.cpu(), expected.index) and torch.equal(batch.labels.cpu(), expected.labels)


def test_a_batch_lies_on_the_device_of_its_images(images):
    batch = Batches(images.to("meta"), VIEWS, seed=0, batch_size=12).batch(0)
    assert {tensor.device.type for tensor in (batch.index, batch.labels, *batch.views)} == {"meta"}
