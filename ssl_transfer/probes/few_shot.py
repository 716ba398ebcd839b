"""What a person gets who labels only a few images, which is the score that shows a good embedding best."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_splits
from ssl_transfer.probes.logistic import fit_each
from ssl_transfer.probes.rows import Rows
from ssl_transfer.probes.scaling import floating, rescaled, scale_of, unit_rows
from ssl_transfer.probes.splits import rank_in_class

# scikit-learn's C. With rows of norm one it means the same whatever the width of the features.
C = 10.0


@dataclass(frozen=True)
class FewShotScore:
    """Mean and standard deviation (n - 1) of the test accuracy over draws of the labeled images."""

    mean: float
    sd: float
    draws: int
    labels: int
    C: float = C
    normalization: str = "centered, norm 1"


@torch.no_grad()
def few_shot(
    train_x: Float[Tensor, "n_train d"],
    train_y: Int64[Tensor, " n_train"],
    test_x: Float[Tensor, "n_test d"],
    test_y: Int64[Tensor, " n_test"],
    *,
    labels_per_class: Sequence[int | float],
    draws: int = 10,
    seed: int = 0,
) -> dict[int | float, FewShotScore]:
    """Test accuracy of logistic regression on a few labeled images of each class, averaged over draws of them.

    An entry of ``labels_per_class`` is a number of images of each class, or a fraction below 1 of each class, but at
    least one image. The mean of the training split, for which no labels are needed, is taken off the features, and
    they are brought to length one. The penalty is scikit-learn's C = 10, a strength of 1 / (10 n), since so few images
    leave none to choose it on. This is the low-shot protocol of Assran et al., "Masked siamese networks", ECCV 2022,
    but with a bias. Draw i of ``draws`` is a function of (``seed``, i), and the images of a smaller number are among
    those of a larger one.

    Raises:
        ValueError: the splits cannot be scored against each other, ``draws`` is below 1, or the training split has not
            as many images of each class as are asked for.
    """
    check_splits(train_x, train_y, test_x, test_y)
    if draws < 1:
        raise ValueError(f"draws is {draws}; make at least one draw of the labeled images.")
    classes, code, sizes = train_y.unique(return_inverse=True, return_counts=True)
    wanted = {amount: images_per_class(amount, sizes) for amount in labels_per_class}
    train, test = (Rows(x, change=floating) for x in (train_x, test_x))
    scale = scale_of(train.extremes())
    train, test = (rows.changed(lambda part: rescaled(part, scale)) for rows in (train, test))
    center = train.average(lambda part: part.mean(dim=0))
    train, test = (rows.changed(lambda part: unit_rows(part - center)) for rows in (train, test))
    places = torch.stack([rank_in_class(train_y, seed, draw) for draw in range(draws)])
    return {
        amount: _score(train, code, test, test_y, classes, places < per_class[code])
        for amount, per_class in wanted.items()
    }


def images_per_class(amount: int | float, sizes: Tensor) -> Tensor:
    """How many images of each class ``amount`` asks for, where the classes have ``sizes`` images.

    Raises:
        ValueError: it is neither a whole number nor a fraction, or more than the smallest class has.
    """
    if amount <= 0 or (amount > 1 and amount != int(amount)):
        raise ValueError(f"labels_per_class has {amount}; give whole numbers of images, or fractions between 0 and 1.")
    if amount < 1:
        return (sizes * amount).round().long().clamp(min=1)
    if amount > sizes.min():
        raise ValueError(
            f"labels_per_class has {amount} but the smallest class has {int(sizes.min())} training images; "
            "ask for no more than that."
        )
    return torch.full_like(sizes, int(amount))


def _score(train: Rows, code: Tensor, test: Rows, test_y: Tensor, classes: Tensor, labeled: Tensor) -> FewShotScore:
    """Fit all draws as one batched problem; ``labeled`` has one row per draw, each with equally many images."""
    draws = len(labeled)
    rows = labeled.nonzero()[:, 1].view(draws, -1)
    labels = rows.shape[1]
    strengths = torch.full((draws,), 1 / (C * labels), dtype=torch.float64, device=train.device)
    x = train[rows.flatten()].unflatten(0, rows.shape)
    fit = fit_each(x.double(), code[rows], strengths, num_classes=len(classes))
    predicted = torch.cat([fit.predict(part) for part in test.parts()], dim=1)
    accuracy = (classes[predicted] == test_y).double().mean(dim=1)
    return FewShotScore(
        mean=accuracy.mean().item(),
        sd=accuracy.std().item() if draws > 1 else 0.0,
        draws=draws,
        labels=labels,
    )
