"""Lists made in bf16 miss no neighbor: what is found is what a search in float32 finds."""

import pytest
import torch
import torch.nn.functional as F

from ssl_transfer.probes import neighbors, shortlist
from ssl_transfer.probes.search import new_buffer, search
from ssl_transfer.probes.shortlist import Shortlist
from tests.probes.synthetic import clouds


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def far_rows() -> torch.Tensor:
    """A few rows a thousand times as long as the others."""
    x = randn(3000, 16)
    x[::500] *= 1000
    return x


FEATURES = {
    "clouds": clouds(3000, 32, 7, spread=2.0, seed=1)[0],
    "all positive, as after a ReLU": randn(3000, 64).relu() + 0.1,
    "close together, far from the origin": randn(3000, 24) + 30,
    "closer than bf16 can tell": 1 + 1e-4 * randn(3000, 24),
    "every row three times": randn(1000, 16).repeat(3, 1),
    "rows of zeros": randn(3000, 16) * (torch.arange(3000) % 3 > 0)[:, None],
    "a few far rows": far_rows(),
    "one dimension": randn(3000, 1),
    "wide": randn(3000, 700),
}
every_kind = pytest.mark.parametrize("x", FEATURES.values(), ids=FEATURES)


def settings(x: torch.Tensor, metric: str) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Queries, which are the bank's rows too, and what the scores are made of."""
    if metric == "cosine":
        return F.normalize(x, dim=1), {"scale": 1 / x.norm(dim=1).clamp(min=1e-12), "offset": None}
    x -= x.mean(dim=0)
    return x, {"scale": None, "offset": x.square().sum(dim=1) / -2}


def scores(queries, bank, scale, offset):
    """In float64, as the formula says."""
    product = queries.double() @ bank.double().T
    return product * (1 if scale is None else scale.double()) + (0 if offset is None else offset.double())


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 20])
@every_kind
def test_no_row_off_the_list_scores_above_the_bound(x, k, metric):
    bank = x.clone()
    queries, given = settings(bank, metric)
    queries, own = queries[:300], torch.arange(300)
    listed, bound = Shortlist(bank, k, **given, buffer=new_buffer(300, bank)).candidates(queries, own)
    every = scores(queries, bank, **given)
    every[own, own] = -torch.inf
    every.scatter_(1, listed, -torch.inf)
    assert listed.shape[1] == k + 64 and all(len(set(rows)) == k + 64 for rows in listed.tolist())
    assert (every.amax(dim=1) <= bound).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("alone", [False, True], ids=["among others", "without itself"])
@every_kind
def test_what_is_found_is_what_float32_finds(x, alone, metric):
    bank = x.clone()
    queries, given = settings(bank, metric)
    own = torch.arange(700) if alone else None
    buffer = new_buffer(700, bank)
    score, index = Shortlist(bank, 20, **given, buffer=buffer)(queries[:700], own)
    expected, _ = search(queries[:700], bank, 20, **given, own=own, buffer=buffer)
    every = scores(queries[:700], bank, **given)
    rounding = 32 * torch.finfo(torch.float32).eps * every.abs().amax().item()  # both are sums of float32
    torch.testing.assert_close(score, expected, rtol=0, atol=rounding)
    torch.testing.assert_close(score.double(), every.gather(1, index), rtol=0, atol=rounding)
    assert all(len(set(rows)) == 20 for rows in index.tolist())
    assert not alone or (index != own[:, None]).all()


def test_float32_is_asked_again_only_where_lists_are_not_sure(monkeypatch):
    asked = []
    plain = Shortlist._search
    monkeypatch.setattr(Shortlist, "_search", lambda self, *given: asked.append(len(given[0])) or plain(self, *given))

    def searches(name):
        asked.clear()
        bank = FEATURES[name].clone()
        queries, given = settings(bank, "cosine")
        find = Shortlist(bank, 20, **given, buffer=new_buffer(500, bank))
        find(queries[:500]), find(queries[500:1000])
        return list(asked)

    assert sum(searches("clouds")) < 20
    assert searches("closer than bf16 can tell") == [500, 500]  # of the second tile no list is made


def test_a_long_search_is_the_same_by_lists_and_without(monkeypatch):
    x = FEATURES["clouds"]

    def found(fast):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)
        made = []
        monkeypatch.setattr(neighbors, "Shortlist", lambda *a, **b: made.append(1) or Shortlist(*a, **b))
        tiles = list(neighbors.nearest(x, x, 20, exclude_self=True))
        return torch.cat([t.similarity for t in tiles]), torch.cat([t.index for t in tiles]), len(made)

    by_lists, plain = found(True), found(False)
    assert (by_lists[2], plain[2]) == (1, 0)
    torch.testing.assert_close(by_lists[0], plain[0], rtol=0, atol=1e-6)
    assert (by_lists[1] == plain[1]).double().mean() > 0.999


def test_lists_are_made_of_long_banks_for_many_queries_where_bf16_is_fast(monkeypatch):
    bank = torch.zeros(8 * 84, 4)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert shortlist.pays(2048, bank, 20)
    assert not shortlist.pays(2047, bank, 20)
    assert not shortlist.pays(2048, bank[1:], 20)
    assert not shortlist.pays(2048, bank.double(), 20)
    assert not shortlist.pays(2048, bank[:1].expand(2**27 + 1, 4), 20)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not shortlist.pays(2048, bank, 20)
