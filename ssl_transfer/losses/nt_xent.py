"""NT-Xent, the loss of SimCLR (Chen et al., ICML 2020)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_transfer.losses.checks import check_positive
from ssl_transfer.losses.precision import unit_rows
from ssl_transfer.losses.tiles import anchor_range, sum_over_anchors


def nt_xent(
    first: Float[Tensor, "n d"], second: Float[Tensor, "n d"], *, temperature: float = 0.5, anchors: slice | None = None
) -> Float[Tensor, ""]:
    """Find the other view of an image among all views of all images (Chen et al., eq. 1).

    With the 2n rows z of both views brought to length one, and p(i) the row that shows the image of row i in the other
    view:

        L = -(1/2n) sum_i log( exp(z_i . z_p(i) / temperature) / sum_{k != i} exp(z_i . z_k / temperature) )

    Rows are those of the global batch. ``anchors`` are the images whose two terms this process computes, by default
    all: the sum over processes is L. A row of zeros is equally far from all others and gets a finite gradient. The same
    number as lightly's ``NTXentLoss``, in memory linear in n.

    Raises:
        ValueError: the views have different rows; ``temperature`` is not positive; or ``anchors`` is no contiguous part
            of the images.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"first {tuple(first.shape)} and second {tuple(second.shape)} must have the same rows, one per image: "
            "pass two views of the same batch."
        )
    check_positive(temperature=temperature)
    images = anchor_range(anchors, len(first))
    # Image by image, so that the anchors' rows are contiguous and the other view of row i is row i ^ 1.
    views = unit_rows(torch.stack((first, second), dim=1).flatten(0, 1))

    def term(rows: slice, views: Tensor) -> Tensor:
        logits = (views[rows] / temperature) @ views.T
        logits[:, rows].fill_diagonal_(-torch.inf)
        positives = torch.arange(rows.start, rows.stop, device=views.device).bitwise_xor(1)
        return cross_entropy(logits, positives, reduction="sum")

    n = len(views)
    return sum_over_anchors(term, slice(2 * images.start, 2 * images.stop), n, views) / n
