"""What every probe asks of its input; each complaint is one sentence in the user's words.

Signatures promise no shapes here, since these functions are what finds other ones.
"""

import torch
from torch import Tensor


def check_features(features: Tensor, name: str) -> None:
    """Refuse what is no matrix of features, an empty one, and rows that hold NaN or infinity.

    Raises:
        ValueError: what is wrong with ``features``, which the message calls ``name``.
    """
    if features.ndim != 2:
        raise ValueError(f"{name} has the shape {tuple(features.shape)}; give a matrix with one row for each image.")
    if features.numel() == 0:
        raise ValueError(f"{name} is empty (shape {tuple(features.shape)}); give at least one row and one column.")
    # One sum per row is ten times cheaper than a look at every number, and finite only if all of them are.
    if torch.isfinite(features.sum(dim=1)).all():
        return
    bad = (~torch.isfinite(features).all(dim=1)).nonzero()[:, 0]
    if len(bad):
        raise ValueError(
            f"{name} has {len(bad)} of {len(features)} rows that are not finite, the first is row {bad[0].item()}; "
            "look for a diverged model, a division by zero or an overflow of half precision in what made the features."
        )


def check_labeled(features: Tensor, labels: Tensor, name: str) -> None:
    """Refuse features that have not exactly one label each; a negative label means that there is none.

    Raises:
        ValueError: what is wrong with ``name``_x or ``name``_y.
    """
    check_features(features, f"{name}_x")
    check_labels(labels, len(features), name)


def check_labels(labels: Tensor, n: int, name: str) -> None:
    """Refuse anything but one class number for each of ``n`` rows; a negative one means that there is none.

    Raises:
        ValueError: what is wrong with ``name``_y.
    """
    if labels.ndim != 1:
        raise ValueError(f"{name}_y has the shape {tuple(labels.shape)}; give one class number per row.")
    if labels.dtype == torch.bool or labels.is_floating_point():
        raise ValueError(f"{name}_y is of {labels.dtype}; give class numbers as integers, such as labels.long().")
    if n != len(labels):
        raise ValueError(f"{name}_x has {n} rows but {name}_y has {len(labels)} labels; give one label per row.")
    if unlabeled := int((labels < 0).sum()):
        raise ValueError(
            f"{name}_y has {unlabeled} of {len(labels)} labels missing (negative); score on labeled images only."
        )


def check_splits(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> None:
    """Refuse two splits that cannot be scored against each other.

    Raises:
        ValueError: what is wrong with one of them, or does not fit.
    """
    check_labeled(train_x, train_y, "train")
    check_labeled(test_x, test_y, "test")
    check_same_width(train_x, test_x)
    check_classes(train_y, test_y)


def check_same_width(train_x: Tensor, test_x: Tensor) -> None:
    """Refuse splits of different width, which are of different models or layers.

    Raises:
        ValueError: both widths.
    """
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(
            f"train_x has {train_x.shape[1]} dimensions but test_x has {test_x.shape[1]}; "
            "extract both with the same model and layer."
        )


def check_classes(train_y: Tensor, test_y: Tensor) -> None:
    """Refuse a training split of one class, and a test split with classes that the training split does not have.

    Raises:
        ValueError: the only class, or the classes that are absent.
    """
    if len(train_y.unique()) < 2:
        raise ValueError(
            f"train_y has the class {train_y[0].item()} alone, so there is nothing to tell apart; "
            "give images of two or more classes."
        )
    present = torch.isin(test_y.unique(), train_y.unique())
    if absent := test_y.unique()[~present].tolist():
        shown = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
        raise ValueError(
            f"test_y has {len(absent)} classes that are absent from train_y ({shown}); "
            "train and test must come from the same classes."
        )


def check_same_images(student: Tensor, teacher: Tensor) -> None:
    """Refuse features of student and teacher that cannot be those of the same images.

    Raises:
        ValueError: what is wrong with one of them, or the numbers of their rows.
    """
    check_features(student, "student")
    check_features(teacher, "teacher")
    if len(student) != len(teacher):
        raise ValueError(
            f"student has {len(student)} rows but teacher has {len(teacher)}; give features of the same images."
        )


def check_k(k: int, available: int) -> None:
    """Refuse to look for fewer than one neighbor, or for more than there are images.

    Raises:
        ValueError: ``k``, and what it may be.
    """
    if available < 1:
        raise ValueError("there is no other image to search; give two or more.")
    if not 1 <= k <= available:
        raise ValueError(f"k is {k} but there are {available} images to search; choose k between 1 and {available}.")
