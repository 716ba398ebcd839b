"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017)."""

from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.checks import check_pair
from ssl_transfer.losses.features.maps import share_of_mean, shrink
from ssl_transfer.losses.precision import unit_rows, widen


def attention_transfer(
    student: Float[Tensor, "n c_student h_student w_student"],
    teacher: Float[Tensor, "n c_teacher h_teacher w_teacher"],
    *,
    rows: int | None = None,
) -> Float[Tensor, ""]:
    """Compare where student and teacher look (Zagoruyko and Komodakis, ICLR 2017).

        a = normalize( mean_c F_c^2 ), flat        L = mean( (a^s - a^t)^2 )

    The larger map is averaged down to the size of the smaller one, and the numbers of channels may differ. ``rows`` is
    the number of rows of the global batch, if these are a part of it. The code of Kim et al., CVPR 2021, sums the loss
    over several maps.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite.
    """
    check_pair(student, teacher)
    teacher = teacher.detach()
    return share_of_mean((_attention(shrink(student, teacher)) - _attention(shrink(teacher, student))).square(), rows)


def _attention(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n hw"]:
    return unit_rows(widen(x).square().mean(dim=1).flatten(1))
