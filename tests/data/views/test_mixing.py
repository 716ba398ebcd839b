import numpy as np
import pytest
import timm.data.mixup
import torch

from ssl_transfer.data.views.mixing import Mix, draw_mix

SIDE = {"height": 32, "width": 24}


def drawn(count: int, *, mixup: float, cutmix: float, view: int = 0) -> list[Mix]:
    return [draw_mix(seed=1, step=step, view=view, mixup=mixup, cutmix=cutmix, **SIDE) for step in range(count)]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_mixing_is_timms_with_the_same_draws(monkeypatch, mixup, cutmix):
    images, labels = torch.rand(6, 3, 32, 24), torch.arange(6)
    mix = draw_mix(seed=0, step=7, view=0, mixup=mixup, cutmix=cutmix, **SIDE)
    theirs = timm.data.mixup.Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=0.1, num_classes=6)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (mix.own, mix.box is not None))
    monkeypatch.setattr(timm.data.mixup, "cutmix_bbox_and_lam", lambda *a, **k: (mix.box, mix.own))
    expected, target = theirs(images.clone(), labels)
    torch.testing.assert_close(mix(images, images.flip(0)), expected)

    logits = torch.randn(6, 6)
    own, other = (torch.nn.functional.cross_entropy(logits, y, label_smoothing=0.1) for y in (labels, labels.flip(0)))
    soft = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(mix.own * own + (1 - mix.own) * other, soft)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_beta_distributed(alpha):
    shares = np.array([mix.own for mix in drawn(2000, mixup=alpha, cutmix=0.0)])
    expected = np.random.default_rng(0).beta(alpha, alpha, 20000)
    levels = np.linspace(0.05, 0.95, 19)
    assert np.abs(np.quantile(shares, levels) - np.quantile(expected, levels)).max() < 0.05
    assert 0 <= shares.min() and shares.max() <= 1


def test_a_box_is_what_its_share_says_and_its_center_any_pixel():
    centers = []
    for mix in drawn(500, mixup=0.0, cutmix=1.0):
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= 32 and 0 <= left <= right <= 24
        assert mix.own == 1 - (bottom - top) * (right - left) / (32 * 24)
        centers.append((top + bottom) / 2 / 32)
    assert min(centers) < 0.2 and max(centers) > 0.8


def test_both_take_turns_and_views_differ():
    pasted = [mix.box is not None for mix in drawn(400, mixup=0.8, cutmix=1.0)]
    assert 150 < sum(pasted) < 250
    assert drawn(5, mixup=0.8, cutmix=1.0) == drawn(5, mixup=0.8, cutmix=1.0)
    assert drawn(5, mixup=0.8, cutmix=1.0) != drawn(5, mixup=0.8, cutmix=1.0, view=1)


def test_nothing_to_mix_by_is_refused():
    with pytest.raises(ValueError, match="must not be negative, and not both 0"):
        drawn(1, mixup=0.0, cutmix=0.0)
