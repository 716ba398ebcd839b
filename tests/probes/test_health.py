import math

import pytest
import torch
import torch.nn.functional as F

from ssl_transfer.probes import alignment, effective_rank, health, uniformity
from tests.reference import probes as twin


@pytest.fixture
def x():
    return torch.randn(60, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_alignment_is_the_mean_squared_distance_of_views_on_the_sphere(x):
    other = x.flip(0)
    distance = [(a / a.norm() - b / b.norm()).norm().item() ** 2 for a, b in zip(x, other, strict=True)]
    assert alignment(x, other) == pytest.approx(sum(distance) / 60)
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("tile", [1024, 13])
def test_uniformity_equals_its_formula_pair_by_pair(x, tile, monkeypatch):
    monkeypatch.setattr(health, "TILE_ROWS", tile)
    assert uniformity(x) == pytest.approx(twin.uniformity(x))


def test_uniformity_runs_from_collapse_to_a_uniform_cloud():
    cloud = torch.randn(1500, 256, generator=torch.Generator().manual_seed(0))
    assert uniformity(torch.ones(10, 3)) == pytest.approx(0, abs=1e-9)
    assert uniformity(torch.zeros(10, 3)) == 0
    assert uniformity(cloud) == pytest.approx(-4 + 8 / 256, abs=5e-3)


@pytest.mark.parametrize("n", [40, 4])
def test_effective_rank_counts_equal_directions(n):
    """Both when images outnumber dimensions and when dimensions outnumber images."""
    directions = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(1)))[0][:3]
    rows = F.one_hot(torch.arange(n) % 3, 3).float()
    rows = rows / rows.sum(dim=0).sqrt()
    assert effective_rank(rows @ directions) == pytest.approx(3, rel=1e-3)


def test_effective_rank_is_the_exponential_entropy_of_singular_values(x):
    share = torch.linalg.svdvals(x) / torch.linalg.svdvals(x).sum()
    assert effective_rank(x) == pytest.approx(math.exp(-(share * share.log()).sum().item()))


def test_effective_rank_of_a_collapsed_embedding_is_one():
    assert effective_rank(torch.ones(20, 5)) == pytest.approx(1, abs=1e-5)


def test_figures_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="at least two"):
        uniformity(torch.ones(1, 3))
    with pytest.raises(ValueError, match="zero everywhere"):
        effective_rank(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="not finite"):
        uniformity(torch.full((4, 3), torch.inf))
    with pytest.raises(ValueError, match=r"first has the shape \(4, 3\) but second \(1, 3\)"):
        alignment(torch.ones(4, 3), torch.ones(1, 3))
