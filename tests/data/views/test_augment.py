import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from scipy import stats
from sklearn.datasets import load_sample_images
from torchvision.transforms import v2

from ssl_transfer.catalog.presets import PRESETS
from ssl_transfer.data.views.augment import Augment, make_views, together
from ssl_transfer.data.views.color import JITTER_ORDERS
from tests.reference import augment as reference

JITTER = dict(color_jitter=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)
EVERYTHING = dict(
    crop_scale=(0.08, 1.0),
    flip=0.5,
    grayscale=0.2,
    blur=0.5,
    solarize=0.3,
    cutout=5,
    **JITTER | dict(color_jitter=0.8),
)
ADDRESS = dict(seed=0, epoch=3, view=1)


@pytest.fixture(scope="module")
def photographs():
    """Tiles of 32 x 32 from scikit-learn's two photographs, among them black, white and saturated ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
    tiles = whole.permute(0, 3, 1, 2).unfold(2, 32, 61).unfold(3, 32, 61).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    plain = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 255], [128, 128, 128], [255, 255, 0]])
    plain = plain.to(torch.uint8)[:, :, None, None].expand(-1, -1, 32, 32)
    return torch.cat((plain, tiles))[:120].contiguous()


def draw(augment, images, **address):
    address = ADDRESS | dict(index=torch.arange(len(images))) | address
    return augment.parameters(*images.shape[2:], **address)


OPERATIONS = {
    "crop to a larger size": dict(size=48, crop_scale=(0.05, 0.6)),
    "crop to the same size": dict(size=32, crop_scale=(0.08, 1.0)),
    "crop to a smaller size": dict(size=9, crop_scale=(0.5, 1.0), crop_ratio=(0.3, 3.0)),
    "resize": dict(size=20),
    "crop with padding": dict(size=32, crop_padding=4),
    "crop with padding to a smaller size": dict(size=24, crop_padding=2),
    "flip": dict(size=32, flip=0.5),
    "crop and flip": dict(size=32, crop_scale=(0.08, 1.0), flip=0.5),
    "brightness": dict(size=32, color_jitter=1.0, brightness=0.9),
    "contrast": dict(size=32, color_jitter=1.0, contrast=0.9),
    "saturation": dict(size=32, color_jitter=1.0, saturation=0.9),
    "hue": dict(size=32, color_jitter=1.0, hue=0.5),
    "grayscale": dict(size=32, grayscale=0.5),
    "blur": dict(size=32, blur=0.7),
    "wide blur": dict(size=8, blur=1.0, blur_sigma=(2.0, 6.0)),
    "solarize": dict(size=32, solarize=0.5),
    "cutout": dict(size=32, cutout=9),
    "even cutout": dict(size=32, cutout=16),
}


@pytest.mark.parametrize("options", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("channels", [3, 1])
def test_every_operation_equals_torchvision(photographs, options, channels):
    images, augment = photographs[::3, :channels], Augment(**options)
    parameters = draw(augment, images)
    torch.testing.assert_close(
        augment.apply(images, parameters), reference.apply(augment, images, parameters), atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("channels", [3, 1])
def test_color_jitter_equals_torchvision_in_every_order(photographs, channels):
    images, augment = photographs[:, :channels], Augment(32, **JITTER)
    parameters = draw(augment, images)
    assert len(parameters.order.unique()) == len(JITTER_ORDERS)
    difference = (augment.apply(images, parameters) - reference.apply(augment, images, parameters)).abs()
    assert difference.max() < 0.5 / 255


@pytest.mark.parametrize("options", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_is_within_2_of_torchvision_on_8_bit_images(photographs, options):
    """In color operations torchvision cuts off what 8 bits cannot hold, so there our views are cut off too."""
    images, augment = photographs[::3], Augment(**options)
    parameters = draw(augment, images)
    views = augment.apply(images, parameters) * 255
    if augment.color_jitter:
        views = (views + 1e-3).floor()
    theirs = [reference.view(augment, image, parameters[row : row + 1]) for row, image in enumerate(images)]
    difference = (views - torch.stack(theirs)).abs()
    assert difference.max() <= 2 and difference.mean() <= 0.5


@pytest.mark.parametrize("channels, size", [(3, 32), (3, 17), (1, 8)])
def test_a_view_does_not_depend_on_its_batch(photographs, channels, size):
    images, augment = photographs[:, :channels].repeat(5, 1, 1, 1)[:512], Augment(size, **EVERYTHING)
    index = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    together = augment(images[index], **ADDRESS, index=index)
    for row in range(0, len(images), 41):
        alone = augment(images[index[row : row + 1]], **ADDRESS, index=index[row : row + 1])
        assert torch.equal(alone[0], together[row])
    some = augment(images[index[:37]], **ADDRESS, index=index[:37])
    assert torch.equal(some, together[:37])


def test_several_views_of_a_batch_may_be_applied_as_one(photographs):
    images, first, second = photographs[:40], Augment(32, **EVERYTHING), Augment(32, **EVERYTHING | dict(blur=0.0))
    assert first.form == second.form and first.form != Augment(24, **EVERYTHING).form
    drawn = [draw(augment, images, view=view) for view, augment in enumerate((first, second))]
    expected = [augment.apply(images, some) for augment, some in zip((first, second), drawn, strict=True)]
    assert torch.equal(first.apply(images, together(drawn)), torch.cat(expected))
    address = dict(seed=0, epoch=3, index=torch.arange(40))
    assert torch.equal(torch.cat(make_views((first, second), images, **address)), torch.cat(expected))


@pytest.mark.parametrize("change", [dict(seed=1), dict(epoch=4), dict(view=0), dict(index=torch.arange(1, 121))])
def test_a_view_changes_with_its_address(photographs, change):
    augment = Augment(32, **EVERYTHING)
    here = draw(augment, photographs)
    there = draw(augment, photographs, **change)
    assert (here.brightness != there.brightness).float().mean() > 0.5
    assert (here.box != there.box).any(dim=1).float().mean() > 0.9


def test_switching_an_operation_on_leaves_the_others_as_they_were(photographs):
    without = draw(Augment(32, crop_scale=(0.08, 1.0), flip=0.5), photographs)
    with_jitter = draw(Augment(32, crop_scale=(0.08, 1.0), flip=0.5, blur=0.5, **JITTER), photographs)
    assert torch.equal(without.box, with_jitter.box) and torch.equal(without.flip, with_jitter.flip)


def test_without_operations_a_view_is_the_image(photographs):
    augment = Augment(32)
    torch.testing.assert_close(augment(photographs, **ADDRESS, index=torch.arange(120)), photographs / 255)


def test_views_lie_in_zero_to_one(photographs):
    views = Augment(32, **EVERYTHING)(photographs, **ADDRESS, index=torch.arange(120))
    assert views.min() >= 0 and views.max() <= 1 and views.dtype == torch.float32


@pytest.mark.parametrize("shape", [(32, 32), (40, 25), (100, 10)])
def test_crop_boxes_are_distributed_as_torchvisions(shape):
    count, scale, ratio = 3000, (0.08, 1.0), (3 / 4, 4 / 3)
    drawn = Augment(32, crop_scale=scale).parameters(*shape, **ADDRESS, index=torch.arange(count)).box
    assert (drawn[:, :2] >= 0).all() and (drawn[:, :2] + drawn[:, 2:] <= torch.tensor(shape)).all()
    transform, image = v2.RandomResizedCrop(32, scale, ratio), torch.zeros(3, *shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        boxes = [transform.make_params([image]) for _ in range(count)]
    theirs = torch.tensor([[box["top"], box["left"], box["height"], box["width"]] for box in boxes])
    for ours, other in zip(_statistics(drawn), _statistics(theirs), strict=True):
        assert stats.ks_2samp(ours.numpy(), other.numpy(), method="asymp").pvalue > 1e-3


def _statistics(box):
    top, left, height, width = box.double().T
    return top, left, height, width, height * width, height / width, top + height, left + width


def test_jitter_factors_and_orders_are_distributed_as_torchvisions():
    count = 4000
    options = dict(brightness=0.4, contrast=1.3, saturation=0.2, hue=0.1)
    drawn = Augment(32, color_jitter=1.0, **options).parameters(32, 32, **ADDRESS, index=torch.arange(count))
    transform = v2.ColorJitter(**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [transform.make_params([]) for _ in range(count)]
    for name in options:
        other = torch.tensor([params[f"{name}_factor"] for params in theirs])
        assert stats.ks_2samp(getattr(drawn, name).numpy(), other.numpy(), method="asymp").pvalue > 1e-3
    assert stats.chisquare(drawn.order.bincount(minlength=24).numpy()).pvalue > 1e-3


def test_probabilities_and_ranges_are_as_asked():
    count = 20_000
    augment = Augment(
        32, flip=0.3, grayscale=0.2, blur=0.6, solarize=0.1, cutout=4, color_jitter=0.8, **{"brightness": 0.4}
    )
    drawn = augment.parameters(32, 32, **ADDRESS, index=torch.arange(count))
    shares = dict(
        flip=(drawn.flip, 0.3),
        grayscale=(drawn.grayscale, 0.2),
        blur=(drawn.sigma > 0, 0.6),
        solarize=(drawn.solarize, 0.1),
        color_jitter=(drawn.brightness != 1, 0.8),
    )
    for chosen, probability in shares.values():
        assert stats.binomtest(int(chosen.sum()), count, probability).pvalue > 1e-3
    assert stats.kstest(drawn.sigma[drawn.sigma > 0].numpy(), stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    assert stats.chisquare(drawn.cutout[:, 0].bincount(minlength=32).numpy()).pvalue > 1e-3


def test_padded_crops_are_uniform_over_every_offset():
    boxes = Augment(32, crop_padding=4).parameters(32, 32, **ADDRESS, index=torch.arange(8100)).box
    cells = (boxes[:, 0] + 4) * 9 + boxes[:, 1] + 4
    assert stats.chisquare(cells.bincount(minlength=81).numpy()).pvalue > 1e-3


def test_every_preset_builds_and_keeps_its_shape(photographs):
    for views in PRESETS.values():
        for view, options in enumerate(views):
            made = Augment(32, **options)(photographs[:4], seed=0, epoch=0, index=torch.arange(4), view=view)
            assert made.shape == (4, 3, 32, 32)


@pytest.mark.parametrize(
    "options",
    [
        dict(size=0),
        dict(crop_scale=(0.5, 0.2)),
        dict(crop_scale=(0.5, 1.2)),
        dict(crop_scale=(0.5, 1.0), crop_padding=4),
        dict(crop_ratio=(0.0, 1.0)),
        dict(crop_padding=-1),
        dict(flip=1.1),
        dict(brightness=-0.1),
        dict(hue=0.6),
        dict(blur_sigma=(0.0, 1.0)),
        dict(cutout=-2),
    ],
)
def test_an_impossible_option_is_refused_with_its_name_and_value(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Augment(**dict(size=32) | options)


def test_a_padded_crop_larger_than_the_padded_image_is_refused():
    with pytest.raises(ValueError, match="crop_padding"):
        Augment(32, crop_padding=2).parameters(20, 20, **ADDRESS, index=torch.arange(2))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_views_equal_torchvisions_in_any_batch_and_are_not_compiled_for_each_size_of_it(threads):
    program = [sys.executable, "-m", "tests.data.views.compiled_views", str(threads)]
    done = subprocess.run(program, cwd=Path(__file__).parents[3], check=True, capture_output=True, text=True)
    depending, more_compilations, difference = done.stdout.split()
    assert int(depending) == 0
    assert int(more_compilations) == 0
    assert float(difference) < 0.5 / 255


def test_without_a_compiler_a_compiled_augmentation_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no C\\+\\+ compiler no-such-compiler"):
        Augment(32, compiled=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_parameters_and_nearly_the_same_views_on_the_gpu(photographs):
    augment, index = Augment(32, **EVERYTHING), torch.arange(120)
    on_cpu, on_gpu = draw(augment, photographs), draw(augment, photographs.cuda(), index=index.cuda())
    assert all(torch.equal(getattr(on_cpu, name), getattr(on_gpu, name)) for name in vars(on_cpu))
    views = augment(photographs.cuda(), **ADDRESS, index=index.cuda())
    assert (views.cpu() - augment(photographs, **ADDRESS, index=index)).abs().max() < 0.5 / 255
    alone = augment(photographs[7:8].cuda(), **ADDRESS, index=index[7:8].cuda())
    assert torch.equal(alone[0], views[7])


def test_the_brightest_and_darkest_images_stay_within_0_and_1():
    """Weights of a crop or a blur add up to 1 but for rounding, and solarize turns an excess into a deficit."""
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 33, 33).repeat(50, 1, 1, 1)
    for more in ({}, {"solarize": 1.0}, {"blur": 1.0}, {"grayscale": 1.0}):
        augment = Augment(32, crop_scale=(0.08, 1.0), **more)
        views = augment(images, seed=0, epoch=0, index=torch.arange(100), view=0)
        assert 0 <= views.min() and views.max() <= 1
        views = Augment(40, crop_scale=(0.08, 1.0), **more)(images, seed=0, epoch=0, index=torch.arange(100), view=0)
        assert 0 <= views.min() and views.max() <= 1
