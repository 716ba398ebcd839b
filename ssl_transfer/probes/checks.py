"""What every probe asks of its input; each complaint is one sentence in the user's words."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def check_features(features: Float[Tensor, "n d"], name: str) -> None:
    """Refuse an empty table of features and rows that hold NaN or infinity."""
    if features.numel() == 0:
        raise ValueError(f"{name} is empty (shape {tuple(features.shape)}); give at least one row of features.")
    # One sum per row is ten times cheaper than a look at every number, and finite only if all of them are.
    if torch.isfinite(features.sum(dim=1)).all():
        return
    bad = (~torch.isfinite(features).all(dim=1)).nonzero()[:, 0]
    if len(bad):
        raise ValueError(
            f"{name} has {len(bad)} of {len(features)} rows that are not finite, the first is "
            f"row {bad[0].item()}; look for a diverged model or a division by zero where the features were made."
        )


def check_labeled(features: Float[Tensor, "n d"], labels: Int64[Tensor, " n_labels"], name: str) -> None:
    """Refuse features without exactly one label each; a negative label means that there is none."""
    check_features(features, f"{name}_x")
    check_labels(labels, len(features), name)


def check_labels(labels: Int64[Tensor, " n_labels"], n: int, name: str) -> None:
    """Refuse anything but one label for each of ``n`` rows; a negative label means that there is none."""
    if n != len(labels):
        raise ValueError(f"{name}_x has {n} rows but {name}_y has {len(labels)} labels; give one label per row.")
    if unlabeled := int((labels < 0).sum()):
        raise ValueError(
            f"{name}_y has {unlabeled} of {len(labels)} labels missing (negative); score on labeled images only."
        )


def check_splits(
    train_x: Float[Tensor, "n_train d"],
    train_y: Int64[Tensor, " n_train_labels"],
    test_x: Float[Tensor, "n_test d_test"],
    test_y: Int64[Tensor, " n_test_labels"],
) -> None:
    """Refuse two splits that cannot be scored against each other."""
    check_labeled(train_x, train_y, "train")
    check_labeled(test_x, test_y, "test")
    check_same_width(train_x, test_x)
    check_classes(train_y, test_y)


def check_same_width(train_x: Float[Tensor, "n_train d"], test_x: Float[Tensor, "n_test d_test"]) -> None:
    """Refuse splits of different dimension, as they come from different models or layers."""
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(
            f"train_x has {train_x.shape[1]} dimensions but test_x has {test_x.shape[1]}; "
            "extract both with the same model and layer."
        )


def check_classes(train_y: Int64[Tensor, " n_train"], test_y: Int64[Tensor, " n_test"]) -> None:
    """Refuse a training split of one class, and a test split with classes that the training split does not show."""
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


def check_same_images(student: Float[Tensor, "n d_student"], teacher: Float[Tensor, "n_teacher d_teacher"]) -> None:
    """Refuse features of student and teacher that cannot be those of the same images."""
    check_features(student, "student")
    check_features(teacher, "teacher")
    if len(student) != len(teacher):
        raise ValueError(
            f"student has {len(student)} rows but teacher has {len(teacher)}; give features of the same images."
        )


def check_k(k: int, available: int) -> None:
    """Refuse to look for more neighbors than there are images."""
    if not 1 <= k <= available:
        raise ValueError(f"k is {k} but there are {available} images to search; choose k between 1 and {available}.")
