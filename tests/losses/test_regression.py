"""What regression asks of every coordinate, beside what it shares with all losses of embeddings."""

import pytest
import torch
from sklearn.preprocessing import StandardScaler

from ssl_transfer.losses import regression


def rows(n: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_target_is_what_scikit_learn_makes_of_the_teacher():
    student, teacher = rows(50, 6, 0), rows(50, 6, 1) * torch.tensor([1e-3, 1.0, 1e3, 2.0, 5.0, 0.1]) + 7
    target = torch.from_numpy(StandardScaler().fit_transform(teacher.numpy()))
    torch.testing.assert_close(regression(student, teacher), torch.nn.functional.mse_loss(student, target))


def test_units_and_origin_of_a_coordinate_do_not_matter():
    student, teacher = rows(20, 4, 0), rows(20, 4, 1)
    moved = teacher * torch.tensor([0.01, 3.0, 500.0, 1.0]) + torch.tensor([5.0, 0.0, -2.0, 100.0])
    torch.testing.assert_close(regression(student, moved), regression(student, teacher))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_coordinate_that_does_not_vary_has_the_target_zero(dtype):
    student, teacher = rows(37, 3, 0), rows(37, 3, 1).to(dtype)
    teacher[:, 1] = 0.1  # whose mean over 37 rows is not 0.1 to the last digit
    teacher[:, 2] = 0  # as of a unit that is never active
    expected = torch.nn.functional.mse_loss(student[:, 1:], torch.zeros(37, 2, dtype=torch.float64))
    rest = regression(student[:, :1], teacher[:, :1])
    torch.testing.assert_close(regression(student, teacher), (2 * expected + rest) / 3)


def test_float32_far_from_the_origin_keeps_its_digits():
    student, teacher = rows(64, 5, 0).float(), (rows(64, 5, 1) + 1e4).float()
    exact = regression(student.double(), teacher.double())
    torch.testing.assert_close(regression(student, teacher).double(), exact, rtol=1e-6, atol=0)


def test_other_widths_are_refused():
    with pytest.raises(ValueError, match="student and teacher are 3 and 4 wide: regression compares coordinates"):
        regression(rows(8, 3, 0), rows(8, 4, 1))
