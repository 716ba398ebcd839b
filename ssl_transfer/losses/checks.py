"""What every loss asks of its inputs; each complaint is one sentence in the user's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_later: ContextVar[dict[str, Tensor] | None] = ContextVar("later", default=None)


@contextmanager
def checked_later() -> Iterator[dict[str, Tensor]]:
    """Inside the block :func:`check_pair` waits for no device: whoever opened the block looks at the rows later.

    Gives what is filled meanwhile: for each side, ``student`` and ``teacher``, a number on the device that is finite if
    and only if all rows that were checked are.
    """
    totals: dict[str, Tensor] = {}
    token = _later.set(totals)
    try:
        yield totals
    finally:
        _later.reset(token)


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Refuse what are no matrices or feature maps of the same images, and rows that hold NaN or infinity.

    A row that is not finite poisons every relational term, and a mask such as ``distance > 0`` can turn it into a loss
    of zero. The sum of a tensor is not finite if one of its entries is not, so the good case costs one reduction a
    side and one wait for the device, or none inside :func:`checked_later`.

    Raises:
        ValueError: the numbers of rows differ, or how many rows of which side are not finite.
    """
    if student.ndim < 2 or teacher.ndim < 2 or len(student) != len(teacher):
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same rows, "
            "one per image: pass both for the same batch."
        )
    totals = {
        "student": student.detach().sum(dtype=torch.float64),
        "teacher": teacher.detach().sum(dtype=torch.float64),
    }
    later = _later.get()
    if later is not None:
        for side, total in totals.items():
            later[side] = later[side] + total if side in later else total
        return
    if torch.isfinite(totals["student"] + totals["teacher"]):
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
