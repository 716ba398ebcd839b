"""FitNets (Romero et al., ICLR 2015): hints from the inside of the teacher."""

from jaxtyping import Float
from torch import Tensor, nn

from ssl_transfer.losses.checks import check_pair
from ssl_transfer.losses.features.maps import share_of_mean, shrink
from ssl_transfer.losses.precision import widen


class FitNet(nn.Module):
    """Mean squared error between the teacher's feature map and a 1x1 convolution of the student's.

        L = mean( (W F^s - F^t)^2 )

    The hint loss of Romero et al., ICLR 2015. The larger map is averaged down to the size of the smaller one. The
    convolution has no bias and starts in U(-0.005, 0.005), as in the code of Kim et al., CVPR 2021, which sums the loss
    over several maps.
    """

    def __init__(self, student_channels: int, teacher_channels: int):
        super().__init__()
        self.regressor = nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)
        nn.init.uniform_(self.regressor.weight, -0.005, 0.005)

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
        guess, hint = self.regressor(shrink(student, teacher)), shrink(teacher, student)
        return share_of_mean((widen(guess) - widen(hint)).square(), rows)
