"""float32 against float64 computed from the same float32 inputs, where a plain formula loses its digits."""

import pytest
import torch
from torch.nn.functional import normalize

from ssl_transfer import losses
from ssl_transfer.losses import distances, tiles
from tests.losses.catalog import CASES, embeddings, value_and_gradient


def gaussian(squared):
    return torch.exp(-squared)


def standardized(squared):
    n = len(squared)
    others = squared[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
    deviation, mean = torch.std_mean(others, dim=1, correction=0, keepdim=True)
    return 1 / (1 + torch.exp(2 * (squared - mean) / deviation + 3))


def dense_relaxed_contrastive(student, teacher, *, affinity=gaussian, delta=1.0):
    """The formula on all pairs at once, by differences: exact in float64 wherever the rows are."""
    squared = (student[:, None] - student).square().sum(2)
    distance = squared.where(squared > 0, 1).sqrt() * (squared > 0)
    mean = distance.mean(1, keepdim=True)
    d = distance / mean.where(mean > 0, 1)
    teacher = normalize(teacher, dim=1)
    w = affinity((teacher[:, None] - teacher).square().sum(2))
    terms = w * d.square() + (1 - w) * (delta - d).relu().square()
    return terms.fill_diagonal_(0).sum() / len(student)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_clusters(n: int, d: int, clusters: int) -> torch.Tensor:
    return randn(clusters, d)[torch.arange(n) % clusters]


def with_outlier(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([1000 * x[:1], x[1:]])


STUDENTS = {
    "plain": randn(300, 64),
    "offset to norm 10,000": randn(300, 64) + 1250,
    "offset to norm 10,000, spread 0.1": 0.1 * randn(300, 64) + 1250,
    "every row twice": randn(150, 64).repeat(2, 1),
    "every row twice, offset": randn(150, 64).repeat(2, 1) + 1250,
    "near duplicates at 1e-4": randn(150, 64).repeat(2, 1) + 1e-4 * randn(300, 64, seed=1),
    "near duplicates at 1e-6": randn(150, 64).repeat(2, 1) + 1e-6 * randn(300, 64, seed=1),
    "five points only": in_clusters(300, 64, 5),
    "one outlier": with_outlier(randn(300, 64)),
    "three rows, two of them close": randn(3, 64) * torch.tensor([[1.0], [1e-6], [1e-6]]),
    "a prime number of rows": randn(509, 16),
}


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_ENTRIES", 2**14)


@pytest.fixture(params=["close pairs listed", "as on a GPU"])
def either_way(request, monkeypatch):
    """Both ways to keep the digits of close pairs."""
    if request.param == "as on a GPU":
        monkeypatch.setattr(distances, "lists_close_pairs", lambda x: False)
    return request.param


@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS.keys())
@pytest.mark.parametrize("teacher_offset", [0.0, 1250.0])
@pytest.mark.parametrize("affinity", [gaussian, standardized])
def test_float32_keeps_its_digits(student, teacher_offset, affinity, either_way):
    teacher = randn(len(student), 96, seed=2) + teacher_offset
    given = {"affinity": "gaussian", "sigma": 1.0} if affinity is gaussian else {}
    value, gradient = value_and_gradient(losses.relaxed_contrastive, student, teacher, **given)
    exact, exact_gradient = value_and_gradient(
        dense_relaxed_contrastive, student.double(), teacher.double(), affinity=affinity
    )
    assert abs(value - exact) <= 1e-6 * exact
    # float64 knows the distance of two rows a millionth of their norm apart to 1e-16 / 1e-12.
    digits = 1e-4 if either_way == "as on a GPU" and student is STUDENTS["near duplicates at 1e-6"] else 1e-5
    assert (gradient - exact_gradient).norm() <= digits * exact_gradient.norm()


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_float64_for_every_loss(name, either_way):
    case = CASES[name]
    student, teacher = embeddings(case, 60, dtype=torch.float32)
    if "translation" in case.ignores:
        student = student + 4000  # norm 10,000 where a translation changes nothing
    value, gradient = value_and_gradient(case.loss, student, teacher)
    exact, exact_gradient = value_and_gradient(case.loss, student.double(), teacher.double())
    assert abs(value - exact) <= 1e-4 * exact
    assert (gradient - exact_gradient).norm() <= 1e-3 * exact_gradient.norm()


@pytest.mark.parametrize("name", CASES)
def test_autocast_around_the_loss_changes_nothing(name):
    student, teacher = embeddings(CASES[name], 40, dtype=torch.float32)
    expected = value_and_gradient(CASES[name].loss, student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_and_gradient(CASES[name].loss, student, teacher)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_reduced_matmul_precision_around_the_loss_changes_nothing_and_stays():
    student, teacher = randn(200, 32), randn(200, 48, seed=1)
    expected = value_and_gradient(losses.relaxed_contrastive, student, teacher)
    torch.set_float32_matmul_precision("medium")
    try:
        found = value_and_gradient(losses.relaxed_contrastive, student, teacher)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_rows_give_the_float32_result_of_these_rows(name, either_way):
    case = CASES[name]
    student, teacher = embeddings(case, 40, dtype=torch.bfloat16)
    value, gradient = value_and_gradient(case.loss, student, teacher)
    exact, exact_gradient = value_and_gradient(case.loss, student.double(), teacher.double())
    assert value.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert abs(value - exact) <= 1e-4 * exact
    # The gradient of a bfloat16 tensor is one: all that is lost is its last rounding, half of 2^-7.
    assert (gradient - exact_gradient).norm() <= 2**-8 * exact_gradient.norm()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("value", [0.0, 3.3])
def test_collapsed_student_has_a_finite_gradient(name, value, either_way):
    student, teacher = embeddings(CASES[name], 12, dtype=torch.float32)
    loss, gradient = value_and_gradient(CASES[name].loss, torch.full_like(student, value), teacher)
    assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_duplicate_rows_have_a_finite_gradient(name, either_way):
    student, teacher = embeddings(CASES[name], 12, dtype=torch.float32)
    student, teacher = torch.cat([student[:6]] * 2), torch.cat([teacher[:4]] * 3)
    loss, gradient = value_and_gradient(CASES[name].loss, student, teacher)
    assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("dark_rank", "relaxed_contrastive, contextual")]
)
@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_rows_are_a_batch(name, n, either_way):
    student, teacher = embeddings(CASES[name], n, dtype=torch.float32)
    loss, gradient = value_and_gradient(CASES[name].loss, student, teacher)
    assert loss.isfinite() and gradient.isfinite().all()


def test_collapsed_student_pays_the_full_push_and_is_not_moved(either_way):
    teacher = randn(10, 6)
    student = torch.full((10, 4), 3.3)
    loss, gradient = value_and_gradient(losses.relaxed_contrastive, student, teacher, affinity="gaussian", sigma=1.0)
    w = torch.exp(-torch.cdist(normalize(teacher), normalize(teacher)).square())
    torch.testing.assert_close(loss, (1 - w).sum() / 10, rtol=1e-4, atol=0)
    assert not gradient.any()


def test_multi_similarity_of_an_outlier_does_not_overflow():
    student = torch.cat([torch.full((1, 8), 1e4), randn(499, 8)])
    image = torch.arange(500) % 250
    value, gradient = value_and_gradient(losses.relaxed_multi_similarity, student, randn(500, 8, seed=1), image)
    assert value.isfinite() and gradient.isfinite().all()


def check_on_gpu(name, n):
    student, teacher = embeddings(CASES[name], n, dtype=torch.float32)
    value, gradient = value_and_gradient(CASES[name].loss, student.cuda(), teacher.cuda())
    exact, exact_gradient = value_and_gradient(CASES[name].loss, student.double(), teacher.double())
    assert abs(value.cpu() - exact) <= 1e-4 * exact
    assert (gradient.cpu() - exact_gradient).norm() <= 1e-3 * exact_gradient.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_gpu_agrees_with_float64_on_the_cpu(name):
    check_on_gpu(name, 60 if name == "rkd_angle" else 300)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"rkd_angle"}))  # whose work grows with the third power
def test_gpu_agrees_with_float64_on_the_cpu_for_many_rows(name):
    check_on_gpu(name, 4501)
