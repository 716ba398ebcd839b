"""SEED (Fang et al., ICLR 2021): self-supervised distillation by similarities to a queue."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.checks import check_pair, check_positive
from ssl_transfer.losses.precision import unit_rows
from ssl_transfer.losses.tiles import sum_over_anchors, tile_rows


def seed(
    student: Float[Tensor, "n d"],
    teacher: Float[Tensor, "n d"],
    queue: Float[Tensor, "k d"],
    *,
    student_temperature: float = 0.2,
    teacher_temperature: float = 0.01,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Make student rows as similar to a queue of teacher rows as the teacher's own rows are (Fang et al., ICLR 2021).

    The candidates c of row i are its own teacher row and the rows of the queue, all of length one:

        L = -(1/n) sum_i sum_c softmax_c(t_i . c / teacher_temperature) log softmax_c(s_i . c / student_temperature)

    The ``queue`` holds teacher rows of earlier steps and receives no gradient; the caller pushes ``teacher`` into it
    after the step. Student, teacher and queue have the same width. ``anchors`` are the rows i whose terms this process
    computes, by default all; the other rows do not enter these terms.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; a temperature is not positive;
            the widths differ; or ``anchors`` is no contiguous part of the batch.
    """
    check_pair(student, teacher)
    check_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    if not student.shape[1] == teacher.shape[1] == queue.shape[1]:
        raise ValueError(
            f"student, teacher, queue are {student.shape[1]}, {teacher.shape[1]} and {queue.shape[1]} wide: "
            "SEED compares them directly, so give the student an embedding as wide."
        )
    n = len(student)
    ours, theirs, queue = unit_rows(student), unit_rows(teacher.detach()), unit_rows(queue.detach())

    def similarities(rows: slice, x: Tensor) -> Tensor:
        own = (x[rows] * theirs[rows]).sum(dim=1, keepdim=True)
        return torch.cat([own, x[rows] @ queue.T], dim=1)

    def term(rows: slice, ours: Tensor) -> Tensor:
        target = (similarities(rows, theirs) / teacher_temperature).softmax(dim=1)
        return -(target * (similarities(rows, ours) / student_temperature).log_softmax(dim=1)).sum()

    return sum_over_anchors(term, anchors, n, ours, tile=tile_rows(len(queue), ours.device)) / n
