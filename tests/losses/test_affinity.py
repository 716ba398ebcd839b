"""What the affinities promise of a teacher's scale, and of teachers that say little."""

import pytest
import torch
from torch.nn.functional import normalize

from ssl_transfer import losses
from ssl_transfer.losses.relational.affinity import make_affinity
from tests.losses.catalog import two_views, value_and_gradient
from tests.reference import relational as twin

GAUSSIAN = {"affinity": "gaussian", "sigma": 1.0}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drawn_together(teacher: torch.Tensor, factor: float) -> torch.Tensor:
    """Rows whose squared distances, once they have length one, are ``factor`` times those of ``teacher``."""
    return torch.cat([normalize(teacher), torch.full_like(teacher[:, :1], (1 / factor - 1) ** 0.5)], 1)


def weights(teacher: torch.Tensor, name: str = "standardized", sigma: float | None = None, neighbors: int = 2):
    return make_affinity(name, teacher, sigma, neighbors, None).tile(slice(0, len(teacher)))


@pytest.mark.parametrize("factor", [0.5, 1e-4])
def test_the_scale_of_the_teachers_distances_changes_the_gaussian_loss_alone(factor):
    student, teacher, image = randn(20, 5), randn(20, 6, seed=1), torch.arange(20) % 10

    def everything(teacher, **given):
        contrastive = value_and_gradient(losses.relaxed_contrastive, student, teacher, **given)
        return *contrastive, losses.relaxed_multi_similarity(student, teacher, image, **given)

    other = drawn_together(teacher, factor)
    torch.testing.assert_close(everything(other), everything(teacher), rtol=1e-9, atol=1e-12)
    assert not torch.isclose(everything(other, **GAUSSIAN)[0], everything(teacher, **GAUSSIAN)[0], rtol=0.01)


def test_a_narrow_teacher_has_affinities_from_one_to_zero():
    teacher = randn(20, 8)[torch.arange(400) % 20] + 0.3 * randn(400, 8, seed=1)
    teacher = drawn_together(teacher.float(), 1e-3)
    others = ~torch.eye(400, dtype=torch.bool)
    assert weights(teacher, "gaussian", 1.0)[others].min() > 0.99
    standardized = weights(teacher)[others]
    assert standardized.min() < 0.02 and standardized.max() > 0.8


def test_the_affinity_falls_with_the_distance_and_is_a_half_one_and_a_half_deviations_below_the_mean():
    teacher = randn(50, 4)
    squared = torch.cdist(normalize(teacher), normalize(teacher)).square()
    others = ~torch.eye(50, dtype=torch.bool)
    deviation, mean = torch.std_mean(squared[others].view(50, 49), dim=1, correction=0, keepdim=True)
    z = (squared - mean) / deviation
    w = weights(teacher)
    assert ((w > 0.5) == (z < -1.5))[others].all() and (w > 0.5)[others].any()
    order = squared.argsort(dim=1)[:, 1:]
    assert (w.gather(1, order).diff(dim=1) <= 0).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_a_teacher_that_says_the_same_of_all_images_says_the_same_of_all_pairs(value):
    teacher = torch.full((6, 5), value)
    expected = torch.full((6, 6), 1 / (1 + torch.tensor(3.0).exp())).fill_diagonal_(1)
    torch.testing.assert_close(weights(teacher), expected)


def test_rounding_of_equal_rows_is_no_structure():
    teacher = randn(1, 64, dtype=torch.float32) + 1e-7 * randn(40, 64, seed=1, dtype=torch.float32)
    w = weights(teacher)[~torch.eye(40, dtype=torch.bool)]
    assert w.min() == w.max()


def test_two_rows_have_one_distance_and_so_no_structure():
    torch.testing.assert_close(weights(randn(2, 3))[0, 1].item(), 1 / (1 + torch.tensor(3.0).exp().item()))


@pytest.mark.parametrize("views", [True, False])
def test_the_contextual_affinity_without_sigma_has_the_standardized_scale(views):
    student, teacher = randn(12, 5), randn(12, 6, seed=1)
    image = two_views(student) if views else None
    pairwise = twin.standardized_affinity(teacher)
    expected = twin.relaxed_contrastive(
        student, teacher, affinity=twin.contextual_affinity(teacher, pairwise, 4, image)
    )
    given = {"affinity": "contextual", "neighbors": 4, "image": image}
    torch.testing.assert_close(losses.relaxed_contrastive(student, teacher, **given), expected, rtol=1e-12, atol=0)
    other = drawn_together(teacher, 1e-3)
    torch.testing.assert_close(losses.relaxed_contrastive(student, other, **given), expected, rtol=1e-9, atol=0)


def test_neighbors_are_told_apart_where_float32_affinities_are_all_one():
    """Four rows far closer to each other than to 396 others: their affinities hardly differ, their distances do."""
    teacher = torch.eye(400)
    teacher[:4] = teacher[0] + 1e-2 * randn(4, 400, seed=3, dtype=torch.float32)
    assert (weights(teacher)[:4, :4] > 1 - 1e-6).all()
    found, expected = (weights(rows, "contextual")[:4, :4] for rows in (teacher, teacher.double()))
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-6)
    assert expected.unique().numel() > 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"affinity": "gaussian"}, "affinity='gaussian' needs sigma, its width"),
        ({"sigma": 0.5}, "sigma=0.5 is the width of a Gaussian: leave it out, or set affinity='gaussian'"),
        ({"affinity": "gaussian", "sigma": 0.0}, "sigma=0.0 must be a positive number"),
        ({"affinity": "contextual", "sigma": -1.0}, "sigma=-1.0 must be a positive number"),
    ],
)
def test_settings_that_make_no_affinity_are_refused(given, sentence):
    for loss in (losses.relaxed_contrastive, losses.relaxed_multi_similarity):
        arguments = [randn(4, 3), randn(4, 3)]
        if loss is losses.relaxed_multi_similarity:
            arguments.append(torch.arange(4))
        with pytest.raises(ValueError, match=sentence):
            loss(*arguments, **given)
