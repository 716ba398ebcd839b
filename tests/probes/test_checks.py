import pytest
import torch

from ssl_transfer.probes.checks import check_features, check_k, check_labels, check_same_images, check_splits


def splits(**changes):
    x, y = torch.ones(6, 3), torch.arange(6) % 3
    return {"train_x": x, "train_y": y, "test_x": x[:4], "test_y": y[:4]} | changes


def test_splits_that_fit_together_are_let_through():
    check_splits(**splits())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_x": torch.ones(5, 3)}, "train_x has 5 rows but train_y has 6 labels; give one label per row."),
        ({"test_x": torch.ones(4, 2)}, "train_x has 3 dimensions but test_x has 2; extract both with the same model"),
        ({"test_y": torch.tensor([0, -1, 2, 1])}, r"test_y has 1 of 4 labels missing \(negative\)"),
        ({"test_y": torch.tensor([0, 9, 8, 1])}, r"test_y has 2 classes that are absent from train_y \(8, 9\)"),
        ({"test_x": torch.full((4, 3), torch.nan)}, "test_x has 4 of 4 rows that are not finite, the first is row 0"),
        (
            {"train_x": torch.ones(0, 3), "train_y": torch.arange(0)},
            r"train_x is empty \(shape \(0, 3\)\); give at least",
        ),
        ({"test_x": torch.ones(4, 0)}, r"test_x is empty \(shape \(4, 0\)\); give at least one row and one column"),
        ({"train_y": torch.arange(6) % 2 > 0}, r"train_y is of torch.bool; give class numbers as integers"),
        ({"test_y": torch.ones(4)}, r"test_y is of torch.float32; give class numbers as integers"),
        (
            {"train_y": torch.ones(6, dtype=torch.int64), "test_y": torch.ones(4, dtype=torch.int64)},
            "train_y has the class 1 alone, so there is nothing to tell apart; give images of two or more classes.",
        ),
    ],
)
def test_splits_that_cannot_be_scored_are_refused_in_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message) as refusal:
        check_splits(**splits(**changes))
    assert str(refusal.value).count(". ") == 0 and str(refusal.value).endswith(".")


def test_features_of_different_images_are_refused():
    with pytest.raises(ValueError, match="student has 4 rows but teacher has 5"):
        check_same_images(torch.ones(4, 2), torch.ones(5, 3))


def test_what_is_no_table_is_refused():
    with pytest.raises(
        ValueError, match=r"maps has the shape \(4, 3, 2, 2\); give a matrix with one row for each image"
    ):
        check_features(torch.ones(4, 3, 2, 2), "maps")
    with pytest.raises(ValueError, match=r"train_y has the shape \(4, 3\); give one class number per row"):
        check_labels(torch.ones(4, 3, dtype=torch.int64), 4, "train")


def test_a_search_among_no_others_is_refused_in_true_words():
    with pytest.raises(ValueError, match="no other image to search"):
        check_k(1, 0)
