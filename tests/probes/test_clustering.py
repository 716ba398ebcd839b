import pytest
import torch

from ssl_transfer.probes import clustering
from tests.probes.synthetic import clouds


def test_clusters_of_separate_clouds_are_the_classes_whatever_their_scale():
    x, y = clouds(120, 8, 4, spread=0.05)
    length = torch.linspace(1, 50, 120)[:, None]
    scores = clustering(x * length, y)
    assert (scores.nmi, scores.ami, scores.n_clusters) == (pytest.approx(1), pytest.approx(1), 4)


def test_ami_of_labels_that_say_nothing_is_zero_where_nmi_is_not():
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    scores = clustering(x, torch.arange(200) % 40)
    assert abs(scores.ami) < 0.05
    assert scores.nmi > 0.3


@pytest.mark.parametrize("x", [torch.zeros(30, 4), torch.full((30, 4), 0.1)])
def test_a_collapsed_model_scores_zero(x):
    scores = clustering(x, torch.arange(30) % 3)
    assert (scores.nmi, scores.ami) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))


def test_scores_are_functions_of_the_seed():
    x, y = clouds(150, 6, 5, spread=2.0)
    assert clustering(x, y, seed=4, restarts=1) == clustering(x, y, seed=4, restarts=1)
