"""Regression of the teacher's coordinates, each in units of its own spread over the batch."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.checks import check_pair
from ssl_transfer.losses.precision import widen
from ssl_transfer.losses.tiles import anchor_range


def regression(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Make student rows equal to teacher rows of which every coordinate is standardized over the batch.

        L = 1/(n d) sum_i sum_k (s_ik - (t_ik - mean_k) / sd_k)^2

    Mean and standard deviation of a coordinate are over all n rows, those of other processes too; a coordinate that
    does not vary has the target 0. Teachers' features are standardized for the same reason by Theia (Shang et al.,
    CoRL 2024) and UNIC (Sariyildiz et al., ECCV 2024): a few coordinates of large spread would be all that the loss
    sees. Student and teacher have the same width, as behind a linear layer that is thrown away. ``anchors`` are the
    rows i whose terms this process computes, by default all; the other rows of the student do not enter these terms.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; the widths differ; or
            ``anchors`` is no contiguous part of the batch.
    """
    check_pair(student, teacher)
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"student and teacher are {student.shape[1]} and {teacher.shape[1]} wide: "
            "regression compares coordinates, so give the student a linear layer of the teacher's width."
        )
    own = anchor_range(anchors, len(student))
    rows = teacher.detach().double()
    deviation, mean = torch.std_mean(rows, dim=0, correction=0)
    varies = deviation > torch.finfo(torch.float32).eps * rows.abs().amax(dim=0)
    target = torch.where(varies, (rows[own.start : own.stop] - mean) / deviation, 0)
    ours = widen(student[own.start : own.stop])
    return (ours - target.to(ours.dtype)).square().sum() / student.numel()
