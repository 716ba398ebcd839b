"""No probe depends on the scale of the features, however far it is from what float32 or float64 can square.

Nor on whether they carry a gradient.
"""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ssl_transfer import probes
from ssl_transfer.probes.scaling import ORDINARY, rescaled, scale_of, unit_rows

PIXELS, LABELS = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
TRAIN, TEST = slice(0, 300), slice(300, 500)


def split(x):
    return x[TRAIN], LABELS[TRAIN], x[TEST], LABELS[TEST]


MEASURES = {
    "kNN": lambda x: probes.knn_accuracy(*split(x), k=[1, 20]),
    "kNN L2": lambda x: probes.knn_accuracy(*split(x), k=[1, 20], metric="euclidean", weighted=False),
    "linear": lambda x: probes.linear_probe(*split(x), strengths=[1e-4, 1e-2]).accuracy,
    "linear sgd": lambda x: probes.sgd_probe(*split(x), epochs=2).accuracy,
    "few labels": lambda x: probes.few_shot(*split(x), labels_per_class=[5], draws=2)[5].mean,
    "retrieval": lambda x: probes.retrieval(x[TEST], LABELS[TEST]).map_at_r,
    "retrieval L2": lambda x: probes.retrieval(x[TEST], LABELS[TEST], metric="euclidean").map_at_r,
    "clustering": lambda x: probes.clustering(x[TEST], LABELS[TEST], restarts=1).nmi,
    "clustering L2": lambda x: probes.clustering(x[TEST], LABELS[TEST], restarts=1, metric="euclidean").nmi,
    "overlap": lambda x: probes.neighbor_overlap(x[TEST], PIXELS[TEST, :40]),
    "CKA": lambda x: probes.linear_cka(x[TEST], PIXELS[TEST, :40]),
    "Spearman": lambda x: probes.distance_spearman(x[TEST], PIXELS[TEST, :40]),
    "Spearman L2": lambda x: probes.distance_spearman(x[TEST], PIXELS[TEST, :40], metric="euclidean"),
    "alignment": lambda x: probes.alignment(x[TEST], x[TEST].flip(0)),
    "uniformity": lambda x: probes.uniformity(x[TEST]),
    "effective rank": lambda x: probes.effective_rank(x[TEST]),
}
POWERS = {torch.float32: (63, 122, -83, -125), torch.float64: (126, 1000, -200, -1000)}  # of two, which round nothing


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_scores_are_the_same_at_every_scale(measure):
    for dtype, powers in POWERS.items():
        expected = measure(PIXELS.to(dtype))
        for power in powers:
            assert measure((PIXELS * 2.0**power).to(dtype)) == pytest.approx(expected, rel=1e-12), power


@pytest.mark.parametrize("measure", ["kNN L2", "linear", "linear sgd", "few labels", "retrieval L2", "CKA"])
@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_scores_that_a_translation_does_not_change_are_the_same_far_from_the_origin(measure, offset):
    expected = MEASURES[measure](PIXELS.float())
    assert MEASURES[measure](PIXELS.float() + offset) == pytest.approx(expected, abs=0.011)


def test_cosines_far_from_the_origin_are_those_of_float64():
    far = PIXELS + 10_000
    in_float64 = MEASURES["kNN"](far)
    assert MEASURES["kNN"](far.float()) == pytest.approx(in_float64, abs=0.011)
    assert in_float64[1, 0.1] > 0.9


def test_one_feature_of_another_scale_keeps_its_say_in_the_linear_probe():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    for scale in (1e-30, 1e30):
        scaled = x * torch.tensor([scale, 1.0, 1.0])
        assert probes.linear_probe(scaled, y, scaled, y).accuracy > 0.95


def test_powers_of_two_round_nothing():
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    for power in (2.0**100, 2.0**-100):
        assert torch.equal(rescaled(x * power), x / scale_of(x * power) * power)
        assert torch.equal(unit_rows(x * power), unit_rows(x))
    assert rescaled(x) is x and scale_of(torch.zeros(3, 2)).item() == 1


@pytest.mark.parametrize("largest", [3.4e38, 2 * ORDINARY, 1e-30, 1e-45])
def test_the_largest_number_is_brought_between_one_and_two(largest):
    assert 1 <= rescaled(torch.tensor([[largest, 0.0]])).max() < 2


@pytest.mark.parametrize("scale", [1e300, 1e-60])
def test_a_feature_file_keeps_what_float32_cannot_hold(tmp_path, scale):
    x, y = PIXELS.numpy(), LABELS.numpy()
    parts = {"train_x": scale * x[TRAIN], "train_y": y[TRAIN], "test_x": scale * x[TEST], "test_y": y[TEST]}
    np.savez(tmp_path / "x.npz", **parts)
    features = probes.load_feature_file(tmp_path / "x.npz")
    assert features.train_x.dtype == torch.float64
    table = (features.train_x, features.train_y, features.test_x, features.test_y)
    assert probes.knn_accuracy(*table, k=[1, 20]) == MEASURES["kNN"](PIXELS)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_features_that_still_carry_a_gradient_are_scored_as_they_are(measure):
    x = PIXELS.float()
    assert measure(x.requires_grad_()) == pytest.approx(measure(x.detach()), rel=1e-12)
