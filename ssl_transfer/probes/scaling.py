"""Features of any size, brought to where their squares can be summed.

In float32 the square of 1e20 is infinite and that of 1e-25 is zero, in float64 those of 1e160 and 1e-170. No probe
depends on the scale of all features, and cosines not on that of a row. So these functions divide by powers of two,
which round nothing: scores of features of ordinary size stay the same to the bit.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import normalize

# The largest number in a row, a column or a table of ordinary size lies between 1 / ORDINARY and this.
ORDINARY = 2.0**32


def floating(x: Shaped[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """``x`` as it is in float64 and float32, in float32 if it is of another type."""
    return x if x.dtype == torch.float64 else x.float()


def scale_of(x: Float[Tensor, "n d"], dim: int | tuple[int, int] = (0, 1)) -> Float[Tensor, "rows columns"]:
    """The power of two below the largest number along ``dim``; one where all these numbers are of ordinary size."""
    # A norm of order infinity would take 15 times as long.
    largest = torch.maximum(x.amax(dim=dim, keepdim=True), -x.amin(dim=dim, keepdim=True))
    if ((largest == 0) | ((largest >= 1 / ORDINARY) & (largest <= ORDINARY))).all():
        return torch.ones_like(largest)
    return torch.where(largest > 0, largest / (2 * torch.frexp(largest).mantissa), 1.0)


def rescaled(x: Float[Tensor, "n d"], scale: Float[Tensor, "rows columns"] | None = None) -> Float[Tensor, "n d"]:
    """``x`` divided by ``scale``, by default that of the whole table; not copied where it is one."""
    scale = scale_of(x) if scale is None else scale
    return x if (scale == 1).all() else x / scale


def unit_rows(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows of length one; rows of zeros stay zero."""
    return normalize(rescaled(x, scale_of(x, dim=1)), dim=1)
