import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from ssl_transfer.probes import classification, expected_calibration_error


def made(n: int = 500, classes: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = 2 * torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 2
    return logits, labels


def by_loop(logits: torch.Tensor, labels: torch.Tensor, bins: int) -> float:
    pairs = zip(logits.double(), labels, strict=True)
    rows = [(row.softmax(0).max().item(), (row.argmax() == y).item()) for row, y in pairs]
    total = 0.0
    for place in range(bins):
        inside = [(sure, right) for sure, right in rows if place / bins < sure <= (place + 1) / bins]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(sure for sure, _ in inside) / len(inside)
            total += len(inside) / len(rows) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_that_of_a_plain_loop(bins):
    logits, labels = made()
    assert expected_calibration_error(logits, labels, bins=bins) == pytest.approx(by_loop(logits, labels, bins))


def test_one_who_is_always_sure_and_right_is_calibrated_and_one_who_is_wrong_is_not():
    labels = torch.arange(6)
    sure = 100 * torch.eye(6)
    assert expected_calibration_error(sure, labels) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(sure, labels.roll(1)) == pytest.approx(1)
    assert expected_calibration_error(torch.zeros(6, 6), labels) == pytest.approx(0, abs=1e-9)


def test_accuracies_are_those_of_sklearn():
    logits, labels = made()
    scores = classification(logits, labels)
    for k, found in ((1, scores.top1), (5, scores.top5)):
        assert found == pytest.approx(top_k_accuracy_score(labels, logits, k=k, labels=range(8)))
    assert scores.calibration_error == expected_calibration_error(logits, labels, bins=15)


def test_three_classes_are_always_among_the_first_five():
    assert classification(*made(classes=3)).top5 == 1.0


def test_calibration_of_other_rows_is_refused():
    logits, labels = made()
    with pytest.raises(ValueError, match="test_x has 500 rows but test_y has 499 labels"):
        classification(logits, labels[1:])


def test_a_label_that_the_classifier_does_not_know_is_refused():
    logits, labels = made()
    labels[3] = 11
    with pytest.raises(ValueError, match="test_y has the label 11 but the classifier knows only 8 classes"):
        classification(logits, labels)
