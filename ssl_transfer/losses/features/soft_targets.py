"""Knowledge distillation by soft targets (Hinton et al., 2015)."""

from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.checks import check_pair, check_positive
from ssl_transfer.losses.precision import widen


def soft_targets(
    student: Float[Tensor, "n c"],
    teacher: Float[Tensor, "n c"],
    *,
    temperature: float = 4.0,
    rows: int | None = None,
) -> Float[Tensor, ""]:
    """Compare the class probabilities of softened logits (Hinton et al., 2015).

        L = T^2 (1/n) sum_i KL( softmax(t_i / T) | softmax(s_i / T) )

    The factor T^2 keeps the size of the gradient when the ``temperature`` T changes. ``rows`` is the number of rows of
    the global batch, if these are a part of it.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; or the temperature is not
            positive.
    """
    check_pair(student, teacher)
    check_positive(temperature=temperature)
    guess = (widen(student) / temperature).log_softmax(dim=1)
    target = (widen(teacher.detach()) / temperature).log_softmax(dim=1)
    divergence = (target.exp() * (target - guess)).sum()
    return temperature**2 * divergence / (len(student) if rows is None else rows)
