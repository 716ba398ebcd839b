"""What every loss asks of its inputs; each complaint is one sentence in the user's words."""

import torch
from torch import Tensor


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Refuse what are no matrices or feature maps of the same images, and rows that hold NaN or infinity.

    A row that is not finite poisons every relational term, and a mask such as ``distance > 0`` can turn it into a loss
    of zero. The sum of a tensor is not finite if one of its entries is not, so the good case costs one reduction and
    one wait for the device per call.

    Raises:
        ValueError: the numbers of rows differ, or how many rows of which side are not finite.
    """
    if student.ndim < 2 or teacher.ndim < 2 or len(student) != len(teacher):
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same rows, "
            "one per image: pass both for the same batch."
        )
    if torch.isfinite(student.detach().sum(dtype=torch.float64) + teacher.detach().sum(dtype=torch.float64)):
        return
    for side, rows in (("student", student), ("teacher", teacher)):
        bad = int((~torch.isfinite(rows.detach().flatten(1)).all(dim=1)).sum())
        if bad:
            raise ValueError(
                f"{side} has {bad} of {len(rows)} rows that are not finite: "
                "lower the learning rate or look at the inputs of these rows."
            )


def check_positive(**values: float | int) -> None:
    """Refuse named values that are not positive.

    Raises:
        ValueError: which value is not.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value} must be a positive number.")
