"""What is found is what a full matrix of similarities in float64 says, whatever the rows are like."""

import pytest
import torch
import torch.nn.functional as F

from ssl_transfer.probes import nearest_neighbors
from ssl_transfer.probes.nearest_neighbors import nearest
from tests.probes.synthetic import clouds


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def far_rows() -> torch.Tensor:
    """A few rows a thousand times as long as the others."""
    x = randn(900, 16)
    x[::150] *= 1000
    return x


FEATURES = {
    "clouds": clouds(900, 32, 7, spread=2.0, seed=1)[0],
    "all positive, as after a ReLU": randn(900, 64).relu() + 0.1,
    "close together, far from the origin": randn(900, 24) + 30,
    "every row three times": randn(300, 16).repeat(3, 1),
    "rows of zeros": randn(900, 16) * (torch.arange(900) % 3 > 0)[:, None],
    "a few far rows": far_rows(),
    "one dimension": randn(900, 1),
    "wide": randn(900, 700),
}
every_kind = pytest.mark.parametrize("x", FEATURES.values(), ids=FEATURES)


def similarities(queries, bank, metric):
    queries, bank = queries.double(), bank.double()
    if metric == "cosine":
        return F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    return -torch.cdist(queries, bank, compute_mode="donot_use_mm_for_euclid_dist").square()


def found(*given, **options):
    tiles = list(nearest(*given, **options))
    assert [tile.rows for tile in tiles] == sorted((tile.rows for tile in tiles), key=lambda rows: rows.start)
    return torch.cat([tile.similarity for tile in tiles]), torch.cat([tile.index for tile in tiles])


@pytest.fixture(params=["one tile", "many tiles"])
def tiles(request, monkeypatch):
    """The same search in one piece and cut into many uneven ones."""
    if request.param == "many tiles":
        monkeypatch.setattr(nearest_neighbors, "QUERY_ROWS", 77)
        monkeypatch.setattr(nearest_neighbors, "BANK_ROWS", 130)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("alone", [False, True], ids=["among others", "without itself"])
@every_kind
def test_the_most_similar_rows_are_found(x, alone, metric, tiles):
    queries = x if alone else x[:200]
    every = similarities(queries, x, metric)
    if alone:
        every.fill_diagonal_(-torch.inf)
    similarity, index = found(queries, x, 20, metric=metric, exclude_self=alone)
    rounding = 32 * torch.finfo(torch.float32).eps * (1 if metric == "cosine" else x.norm(dim=1).max().item() ** 2)
    best = every.topk(20, dim=1).values
    torch.testing.assert_close(similarity.double(), best, rtol=0, atol=rounding)
    torch.testing.assert_close(every.gather(1, index), best, rtol=0, atol=rounding)
    assert all(len(set(rows)) == 20 for rows in index.tolist())
    assert not alone or (index != torch.arange(len(x))[:, None]).all()


CLOSE_TOGETHER = {
    "around one": 1 + 1e-4 * randn(400, 24),
    "in two tight groups": torch.where(torch.arange(400)[:, None] % 2 > 0, 1e4, -1e4) + randn(400, 24),
    "beside a constant of 1e10": torch.cat([randn(400, 24), torch.full((400, 1), 1e10)], dim=1),
    "twice, but for the last digit": torch.cat([randn(200, 24), randn(200, 24) * (1 + 2e-7)]),
}


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("x", CLOSE_TOGETHER.values(), ids=CLOSE_TOGETHER)
def test_rows_closer_than_products_of_float32_can_tell_are_told_apart(x, dtype, metric, tiles):
    x = x.to(dtype)
    exact = F.normalize(x.double(), dim=1) if metric == "cosine" else x.double()
    distance = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    _, index = found(x, x, 5, metric=metric, exclude_self=True)
    nearest_ones = distance.sort(dim=1).values[:, :5]
    torch.testing.assert_close(distance.gather(1, index), nearest_ones, rtol=2e-3, atol=0)


def test_half_precision_and_mixed_types_are_searched_in_the_wider_one():
    x = randn(60, 8).half()
    _, expected = found(x.float(), x.float(), 3)
    assert found(x, x, 3)[1].equal(expected)
    similarity, index = found(x, x.double(), 3)
    assert index.equal(expected) and similarity.dtype == torch.float64


def test_euclidean_neighbors_survive_a_far_origin():
    """float32 distances far from the origin lose their digits unless the mean is taken off first."""
    x = randn(300, 6).double().round(decimals=2)
    near, near_index = found(x, x, 5, metric="euclidean", exclude_self=True)
    far, far_index = found((x + 4096).float(), (x + 4096).float(), 5, metric="euclidean", exclude_self=True)
    assert (near_index == far_index).float().mean() > 0.98
    torch.testing.assert_close(far.double(), near, rtol=2e-2, atol=1e-2)
