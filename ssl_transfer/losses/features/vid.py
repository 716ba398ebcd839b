"""Variational information distillation (Ahn et al., CVPR 2019)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from ssl_transfer.losses.checks import check_pair
from ssl_transfer.losses.features.maps import share_of_mean, shrink
from ssl_transfer.losses.precision import widen

EPSILON = 1e-5  # the smallest variance
INITIAL_VARIANCE = 5.0  # as in the authors' code


class VID(nn.Module):
    """Negative log-likelihood of the teacher's feature map under a Gaussian that the student predicts.

        L = mean( (F^t - m(F^s))^2 / v + log v ) / 2        v = softplus(p) + 1e-5, one per teacher channel

    Variational information distillation (Ahn et al., CVPR 2019). m is a 1x1 convolution, ReLU, a 1x1 convolution, ReLU
    and a 1x1 convolution, without biases. The larger map is averaged down to the size of the smaller one. Variances
    start at 5.
    """

    def __init__(self, student_channels: int, teacher_channels: int):
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        )
        start = math.log(math.expm1(INITIAL_VARIANCE - EPSILON))
        self.raw_variance = nn.Parameter(torch.full((teacher_channels,), start))

    def forward(
        self,
        student: Float[Tensor, "n c_student h_student w_student"],
        teacher: Float[Tensor, "n c_teacher h_teacher w_teacher"],
        *,
        rows: int | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of these rows; ``rows`` is the number of rows of the global batch, if these are a part of it.

        Raises:
            ValueError: student and teacher have different rows, or rows that are not finite.
        """
        check_pair(student, teacher)
        teacher = teacher.detach()
        error = widen(shrink(teacher, student)) - widen(self.mean(shrink(student, teacher)))
        variance = (softplus(self.raw_variance) + EPSILON)[:, None, None]
        return share_of_mean((error.square() / variance + variance.log()) / 2, rows)
