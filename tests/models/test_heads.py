"""Projection heads against the layers that the papers and their authors' code write down."""

import pytest
import torch
from lightly.models.modules.heads import MoCoProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_transfer.models import ProjectionHead


def plain(head: ProjectionHead, features: Tensor, last_norm: str) -> Tensor:
    """Linear, then normalize and rectify, by the weights of ``head``; its last batch norm has none, or is none."""
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm1d)]
    rows = features
    for index, layer in enumerate(linear):
        last = layer is linear[-1]
        rows = rows @ layer.weight.T
        if not last or last_norm != "none":
            rows = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt()
        if not last or last_norm == "affine":
            rows = rows * norms[index].weight + norms[index].bias
        rows = rows if last else rows.clamp_min(0)
    return rows


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("last_norm", ["affine", "plain", "none"])
def test_a_head_with_batch_norm_is_its_formula(layers, last_norm):
    torch.manual_seed(0)
    head = ProjectionHead(6, hidden_dim=8, embedding_dim=4, num_layers=layers, last_norm=last_norm).double()
    for weight in head.parameters():
        nn.init.normal_(weight)
    features = torch.randn(10, 6, dtype=torch.float64)
    torch.testing.assert_close(head(features), plain(head, features, last_norm))
    assert not any(module.bias is not None for module in head.modules() if isinstance(module, nn.Linear))
    affine = [module.affine for module in head.modules() if isinstance(module, nn.BatchNorm1d)]
    assert affine == [True] * (layers - 1) + {"affine": [True], "plain": [False], "none": []}[last_norm]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_head_without_batch_norm_is_linear_layers_with_biases_and_relu(layers):
    head = ProjectionHead(6, hidden_dim=8, embedding_dim=4, num_layers=layers, batch_norm=False)
    features = torch.randn(3, 6)
    expected = features
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    for layer in linear:
        expected = F.linear(expected if layer is linear[0] else expected.relu(), layer.weight, layer.bias)
    assert len(linear) == layers
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_seed_gives_the_first_weights_that_lightlys_heads_have(batch_norm):
    """SimCLR's and MoCo's runs keep their numbers."""
    torch.manual_seed(0)
    theirs = MoCoProjectionHead(6, 8, 4, 2, batch_norm).state_dict()
    torch.manual_seed(0)
    ours = ProjectionHead(6, hidden_dim=8, embedding_dim=4, batch_norm=batch_norm).layers.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
