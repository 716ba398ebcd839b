"""The mean of the losses from several teachers, beside the loss of their averaged relations."""

import pytest
import torch
from torch import Tensor

from ssl_transfer import losses
from tests.losses.catalog import two_views, value_and_gradient
from tests.reference import relational as twin

SHARES = (0.2, 0.3, 0.5)


@pytest.fixture
def rows() -> tuple[Tensor, list[Tensor]]:
    """A student and teachers of other widths and scales."""
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(12, 9, generator=generator, dtype=torch.float64)
    return student, [
        scale * torch.randn(12, 9 + scale, generator=generator, dtype=torch.float64) for scale in (1, 2, 9)
    ]


def mean_of_losses(loss):
    def mean(student: Tensor, teachers: list[Tensor]) -> Tensor:
        return sum(share * loss(student, teacher) for share, teacher in zip(SHARES, teachers, strict=True))

    return mean


def averaged(relation, teachers: list[Tensor]) -> Tensor:
    return sum(share * relation(teacher) for share, teacher in zip(SHARES, teachers, strict=True))


def test_of_the_relaxed_contrastive_loss_it_is_the_loss_of_the_mean_affinities(rows):
    student, teachers = rows
    mean = averaged(twin.standardized_affinity, teachers)
    found = value_and_gradient(mean_of_losses(losses.relaxed_contrastive), student, teachers)
    expected = value_and_gradient(lambda s: twin.relaxed_contrastive(s, None, affinity=mean), student)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_of_the_relaxed_multi_similarity_loss_it_is_at_most_that(rows):
    student, teachers = rows
    image = two_views(student)
    mean = averaged(twin.standardized_affinity, teachers)
    found = mean_of_losses(lambda s, t: losses.relaxed_multi_similarity(s, t, image))(student, teachers)
    limit = twin.relaxed_multi_similarity(student, None, image, affinity=mean)
    assert 0.9 * limit < found < limit  # a logarithm of the affinities is concave


def cosines(x: Tensor) -> Tensor:
    x = x / x.norm(dim=1, keepdim=True)
    return x @ x.T


def probabilities(x: Tensor) -> Tensor:
    similarity = (cosines(x) + 1) / 2
    return similarity / similarity.sum(dim=1, keepdim=True)


def gram_rows(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x @ x.T, dim=1)


def kernel(x: Tensor) -> Tensor:
    product = 0.8 * cosines(x)
    return torch.exp(torch.tensor(-0.8)) * (1 + product + product.square() / 2)


def relative(x: Tensor) -> Tensor:
    """The largest difference of two is below 1 here, so that Huber's loss is a square."""
    apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return apart / (apart.sum() / (len(x) * (len(x) - 1)))


def squares(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().mean()


def divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    return (theirs * ((theirs + 1e-7) / (ours + 1e-7)).log()).mean()


@pytest.mark.parametrize(
    ("loss", "relation", "compared"),
    [
        (losses.pkt, probabilities, divergence),
        (losses.similarity_preserving, gram_rows, squares),
        (losses.correlation_congruence, kernel, squares),
        (losses.rkd_distance, relative, lambda s, t: squares(s, t) / 2),
    ],
    ids=["pkt", "similarity_preserving", "correlation_congruence", "rkd_distance"],
)
def test_of_squares_and_divergences_it_has_the_gradient_of_the_mean_relation(rows, loss, relation, compared):
    """The value is larger, by how much the teachers differ among themselves."""
    student, teachers = rows
    value, gradient = value_and_gradient(mean_of_losses(loss), student, teachers)
    mean = averaged(relation, teachers)
    off_diagonal = ~torch.eye(len(student), dtype=torch.bool)
    if relation is relative:
        assert max((relation(student) - relation(teacher))[off_diagonal].abs().max() for teacher in teachers) < 1
    expected_value, expected = value_and_gradient(lambda s: compared(relation(s), mean), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-9)
    assert value > expected_value * 1.001
