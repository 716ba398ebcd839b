"""What the losses that compare feature maps have in common."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


def shrink(x: Float[Tensor, "n c h w"], like: Float[Tensor, "n c_other h_other w_other"]) -> Float[Tensor, "n c *size"]:
    """``x`` averaged down to the height and width of ``like`` where those are smaller."""
    size = (min(x.shape[2], like.shape[2]), min(x.shape[3], like.shape[3]))
    return x if x.shape[2:] == size else adaptive_avg_pool2d(x, size)


def share_of_mean(x: Float[Tensor, "n *rest"], rows: int | None) -> Float[Tensor, ""]:
    """This process's share of the mean of ``x`` over a global batch of ``rows`` rows, or over these if it is None."""
    return x.mean() if rows is None else x.sum() / (rows * x[0].numel())
