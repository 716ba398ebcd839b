import pytest
import torch
from scipy.stats import spearmanr

from ssl_transfer.probes import agreement, distance_spearman, linear_cka, neighbor_overlap, retention
from tests.reference import probes as twin


@pytest.fixture
def pair():
    """A teacher, and a narrower student that has kept some of it."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(50, 8, generator=generator, dtype=torch.float64)
    return teacher[:, :5] + 0.5 * torch.randn(50, 5, generator=generator, dtype=torch.float64), teacher


def test_neighbor_overlap_equals_counting_common_neighbors(pair):
    ours = neighbor_overlap(*pair, k=7, metric="euclidean")
    assert ours == pytest.approx(twin.neighbor_overlap(*pair, 7))
    assert 7 / 49 < ours < 1


def test_linear_cka_equals_its_definition_by_kernels(pair):
    assert linear_cka(*pair) == pytest.approx(twin.linear_cka(*pair), rel=1e-10)


def test_linear_cka_is_the_same_by_matrices_of_images_where_these_are_fewer_than_dimensions():
    generator = torch.Generator().manual_seed(4)
    teacher = torch.randn(20, 30, generator=generator, dtype=torch.float64)
    student = teacher[:, :10] + torch.randn(20, 10, generator=generator)
    assert linear_cka(student, teacher) == pytest.approx(twin.linear_cka(student, teacher), rel=1e-10)
    assert linear_cka(student, teacher[:, :15]) == pytest.approx(twin.linear_cka(student, teacher[:, :15]), rel=1e-10)


def test_spearman_equals_scipy_on_all_pairs(pair):
    distances = [[(x[i] - x[j]).norm().item() for i in range(50) for j in range(i)] for x in pair]
    assert distance_spearman(*pair, metric="euclidean") == pytest.approx(spearmanr(*distances).statistic)


def test_spearman_of_a_sample_is_near_the_whole_and_a_function_of_the_seed():
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(600, 6, generator=generator)
    student = teacher + 0.7 * torch.randn(600, 6, generator=generator)
    whole = distance_spearman(student, teacher)
    sample = distance_spearman(student, teacher, max_rows=200)
    assert sample == distance_spearman(student, teacher, max_rows=200)
    assert sample != distance_spearman(student, teacher, max_rows=200, seed=1)
    assert sample == pytest.approx(whole, abs=0.05)


def test_a_rotated_and_scaled_copy_agrees_completely(pair):
    _, teacher = pair
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[0]
    result = agreement(3 * teacher @ rotation, teacher, k=5)
    measured = (result.neighbor_overlap, result.linear_cka, result.distance_spearman)
    assert measured == pytest.approx((1, 1, 1), abs=1e-9)


def test_unrelated_embeddings_agree_no_more_than_by_chance():
    generator = torch.Generator().manual_seed(3)
    result = agreement(torch.randn(800, 8, generator=generator), torch.randn(800, 8, generator=generator))
    assert result.neighbor_overlap == pytest.approx(10 / 799, abs=5e-3)
    assert result.linear_cka < 0.05
    assert abs(result.distance_spearman) < 0.05


def test_a_collapsed_student_is_told(pair):
    for constant in (1.0, 0.1):  # of which the mean is off in the last digit
        with pytest.raises(ValueError, match="collapsed"):
            linear_cka(torch.full((50, 3), constant), pair[1])
    with pytest.raises(ValueError, match="collapsed"):
        distance_spearman(torch.ones(50, 3), pair[1])


def test_retention_is_the_share_of_the_teachers_score():
    assert retention(0.45, 0.9) == 0.5
    with pytest.raises(ValueError, match="above 0"):
        retention(0.5, 0.0)
