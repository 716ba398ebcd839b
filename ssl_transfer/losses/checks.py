"""What every loss asks of its inputs, said in one sentence when it is not so."""

import torch
from jaxtyping import Float
from torch import Tensor


def check_rows(student: Tensor, teacher: Tensor) -> None:
    """Raise unless ``student`` and ``teacher`` are matrices, or batches of maps, with one row per image."""
    if student.ndim < 2 or teacher.ndim < 2 or len(student) != len(teacher):
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same rows, "
            "one per image: pass both for the same batch."
        )


def check_positive(**values: float | int) -> None:
    """Raise unless every named value is a positive number."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value} must be a positive number.")


def check_finite(student: Float[Tensor, "n ..."], teacher: Float[Tensor, "n ..."]) -> None:
    """Raise if a row of ``student`` or ``teacher`` holds a NaN or an infinity.

    A non-finite row poisons every relational term, and masks such as ``distance > 0`` can turn it into a loss
    of zero. The sum of a tensor is non-finite if one of its entries is, so the good case is one reduction and
    one wait for the device per call.
    """
    if torch.isfinite(student.detach().sum(dtype=torch.float64) + teacher.detach().sum(dtype=torch.float64)):
        return
    for side, rows in (("student", student), ("teacher", teacher)):
        bad = int((~torch.isfinite(rows.detach().flatten(1)).all(dim=1)).sum())
        if bad:
            raise ValueError(
                f"{side} has {bad} of {len(rows)} rows that are not finite: "
                "lower the learning rate or look at the inputs of these rows."
            )


def check_pair(student: Float[Tensor, "n ..."], teacher: Float[Tensor, "n ..."]) -> None:
    """Raise unless ``student`` and ``teacher`` have the same rows and are finite."""
    check_rows(student, teacher)
    check_finite(student, teacher)
