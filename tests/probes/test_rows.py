"""A table that is looked at part by part gives what it gives as a whole."""

import pytest
import torch

from ssl_transfer.probes import linear, rows
from ssl_transfer.probes.logistic import fit_path
from ssl_transfer.probes.rows import Rows
from tests.probes.test_scale import LABELS, MEASURES, PIXELS

CHOSEN = (LABELS % 3 > 0).nonzero()[:, 0]


@pytest.fixture
def in_parts(monkeypatch):
    """Tables are in parts of 77 rows, the last of them shorter."""
    monkeypatch.setattr(rows, "WHOLE", 0)
    monkeypatch.setattr(rows, "PART", 77 * 64)


def changed(x):
    return Rows(x, CHOSEN, torch.Tensor.float).changed(lambda part: (part - 3) / 7)


def test_rows_are_the_same_to_the_bit_whether_held_or_made_again(monkeypatch, request):
    held = changed(PIXELS)
    request.getfixturevalue("in_parts")
    again = changed(PIXELS)
    assert len(held.slices()) == 1 and len(again.slices()) == -(-len(CHOSEN) // 77)
    assert held.shape == again.shape == (len(CHOSEN), 64) and held.dtype == again.dtype == torch.float32
    assert torch.equal(held[:], (PIXELS[CHOSEN].float() - 3) / 7)
    for part in (slice(None), slice(5, 100, 7), torch.tensor([3, 1, 3])):
        assert torch.equal(held[part], again[part])
    assert torch.equal(torch.cat(list(again.parts())), held[:]) and again.shares().sum().item() == pytest.approx(1)
    assert torch.equal(again.extremes().amax(dim=0), held[:].amax(dim=0))
    assert torch.equal(again.extremes().amin(dim=0), held[:].amin(dim=0))


def test_rows_of_a_large_table_are_not_made_before_they_are_asked_for(in_parts):
    made = []
    kept = Rows(PIXELS, CHOSEN, lambda part: made.append(len(part)) or part)
    made.clear()
    assert [len(part) for part in kept.parts()] == made == [77] * (len(CHOSEN) // 77) + [len(CHOSEN) % 77]


def test_a_fit_of_rows_that_are_made_again_ends_at_the_same_minimum(request):
    strengths = torch.tensor([1e-3, 1e-1], dtype=torch.float64)
    fits = []
    for _ in range(2):
        fits.append(fit_path(changed(PIXELS), LABELS[CHOSEN], strengths, num_classes=10))
        request.getfixturevalue("in_parts")
    assert all(fit.converged.all() for fit in fits)
    torch.testing.assert_close(fits[0].objective, fits[1].objective, rtol=1e-6, atol=0)  # what a fit promises


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_of_a_table_in_parts_is_that_of_the_whole(name, request):
    x = PIXELS[:500].float()
    expected = MEASURES[name](x)
    request.getfixturevalue("in_parts")
    assert MEASURES[name](x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_of_parts_are_those_of_the_whole(dtype, in_parts):
    x = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 3] = 7.3  # constant, of which the mean is off by a rounding error
    x[:, 5] += 1e4 * (torch.arange(1000) > 400)  # where the means of parts are far apart
    mean, scale = linear.standardization(Rows(x.to(dtype)))
    close = {"rtol": 20 * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).eps}
    torch.testing.assert_close(mean, x.mean(dim=0).to(dtype), **close)
    assert scale[3] == torch.inf
    others = torch.arange(64) != 3
    torch.testing.assert_close(scale[others], x.std(dim=0, correction=0)[others].to(dtype), **close)


def test_classifiers_are_judged_part_by_part_as_at_once(monkeypatch, in_parts):
    """Of some classes nothing is known, and in some parts there are no others."""
    labels = LABELS.sort().values
    classes = torch.tensor([2, 3, 8])
    weight = torch.randn(4, 64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 20

    def judged():
        return linear.judge_each(lambda x: (x @ one for one in weight), Rows(PIXELS), classes, labels)

    found = judged()
    known = torch.isin(labels, classes)
    for one, (accuracy, sureness) in zip(weight, found, strict=True):
        logits = PIXELS @ one
        assert accuracy == pytest.approx((classes[logits.argmax(dim=1)] == labels).double().mean().item())
        of_known = linear.judge(logits[known], classes, labels[known])
        assert sureness == pytest.approx(of_known[1]) and of_known[1] < 0
    monkeypatch.setattr(rows, "WHOLE", 2**30)
    assert judged() == [pytest.approx(one) for one in found]
    assert linear.judge_each(lambda x: [x[:, :1]], Rows(PIXELS), torch.tensor([99]), labels) == [(0.0, 0.0)]
