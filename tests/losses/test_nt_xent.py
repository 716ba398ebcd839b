"""NT-Xent beside lightly's, on one process and in shares; several processes are in test_distributed."""

import pytest
import torch
from lightly.loss import NTXentLoss

from ssl_transfer.losses import nt_xent, tiles
from tests.losses.test_relational import LargestTensor


def two_views(n: int, width: int = 6, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, n, width, generator=generator, dtype=torch.float64).to(dtype)
    return first.requires_grad_(), second.requires_grad_()


def value_and_gradients(loss, views, **options) -> list[torch.Tensor]:
    value = loss(*views, **options)
    return [value.detach(), *torch.autograd.grad(value, views)]


@pytest.fixture(params=[1, 4, 2**20], ids="tiles of at least {} entries".format)
def tile(request, monkeypatch):
    """Tiles that end within the views of an image, several whole ones, and one that holds all."""
    monkeypatch.setattr(tiles, "MINIMUM_ROWS", 3)
    monkeypatch.setattr(tiles, "CPU_ENTRIES", request.param)


@pytest.mark.parametrize("n", [1, 2, 13, 40])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_value_and_gradient_are_lightlys(n, temperature, tile):
    views = two_views(n)
    found = value_and_gradients(nt_xent, views, temperature=temperature)
    expected = value_and_gradients(NTXentLoss(temperature), views)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_gradient_is_the_derivative_of_the_value(tile):
    assert torch.autograd.gradcheck(nt_xent, two_views(5, 3))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, temperature=0.2, anchors=slice(1, 4)), two_views(5, 3))


def test_shares_of_disjoint_images_add_up(tile):
    views = two_views(9)
    shares = [value_and_gradients(nt_xent, views, anchors=slice(*cut)) for cut in ((0, 4), (4, 4), (4, 5), (5, 9))]
    whole = value_and_gradients(nt_xent, views)
    torch.testing.assert_close([sum(parts) for parts in zip(*shares, strict=True)], whole, rtol=1e-12, atol=1e-15)


def test_order_of_images_and_of_views_does_not_matter():
    first, second = two_views(12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(nt_xent(second[order], first[order]), nt_xent(first, second), rtol=1e-13, atol=0)


@pytest.mark.parametrize("around", ["nothing", "autocast", "reduced matmuls"])
def test_narrow_rows_and_narrow_arithmetic_around_it_cost_no_digits(around):
    views = two_views(40, 32, dtype=torch.float32)
    expected = value_and_gradients(nt_xent, [view.detach().double().requires_grad_() for view in views])
    torch.set_float32_matmul_precision("medium" if around == "reduced matmuls" else "highest")
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=around == "autocast"):
            found = value_and_gradients(nt_xent, views)
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(found, [x.float() for x in expected], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("collapse", ["all rows alike", "rows of zeros", "duplicates"])
def test_collapsed_rows_have_the_value_of_the_formula_and_a_finite_gradient(collapse):
    first, second = (view.detach() for view in two_views(8, dtype=torch.float32))
    if collapse == "all rows alike":
        first, second = torch.full_like(first, 3.3), torch.full_like(first, 3.3)
    elif collapse == "rows of zeros":
        first[:], second[:] = 0, 0
    else:
        first[4:], second[4:] = first[:4], second[:4]
    value, *gradients = value_and_gradients(nt_xent, (first.requires_grad_(), second.requires_grad_()))
    if collapse != "duplicates":  # all 15 others are equally far
        torch.testing.assert_close(value, torch.tensor(15.0).log())
    torch.testing.assert_close(value, NTXentLoss()(first, second).detach())
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_no_tensor_grows_with_the_square_of_the_batch(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_ENTRIES", 2**12)
    views = two_views(512, dtype=torch.float32)
    with LargestTensor() as largest:
        value_and_gradients(nt_xent, views)
    assert largest.entries <= 1024 * tiles.MINIMUM_ROWS < 1024**2 / 8


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"temperature": 0.0}, "temperature=0.0 must be a positive number"),
        ({"anchors": slice(0, 4)}, "anchors="),
    ],
)
def test_what_it_refuses(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        nt_xent(*two_views(3), **arguments)
