import subprocess
import sys

import pytest
import torch
from torch import nn

from ssl_transfer.models import EmbeddingHead, EmbeddingModel, ProjectionHead, create_backbone


@pytest.fixture
def backbone():
    return create_backbone("tiny_convnet", in_chans=1, image_size=8, mean=(0.3,), std=(0.4,))


@pytest.fixture
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_embedding_is_the_head_on_the_features(backbone, images):
    model = EmbeddingModel(backbone, EmbeddingHead(backbone.num_features, embedding_dim=16)).eval()
    outputs = model.outputs(images)
    assert list(outputs) == ["features", "embedding"]
    torch.testing.assert_close(outputs["features"], backbone(images))
    torch.testing.assert_close(outputs["features"], model.features(images))
    torch.testing.assert_close(outputs["embedding"], model.head(backbone(images)))
    torch.testing.assert_close(outputs["embedding"], model(images))
    assert (model.embedding_dim, model.num_features) == (16, backbone.num_features)


def test_projection_is_named_so(backbone, images):
    head = ProjectionHead(backbone.num_features, hidden_dim=32, embedding_dim=24)
    model = EmbeddingModel(backbone, head).eval()
    outputs = model.outputs(images)
    assert list(outputs) == ["features", "projection"]
    torch.testing.assert_close(outputs["projection"], model(images))
    assert model.embedding_dim == outputs["projection"].shape[1] == 24


def test_without_a_head_the_features_are_the_embedding(backbone, images):
    model = EmbeddingModel(backbone).eval()
    assert list(model.outputs(images)) == ["features"]
    torch.testing.assert_close(model(images), backbone(images))
    assert model.embedding_dim == backbone.num_features


@pytest.mark.parametrize(("num_features", "embedding_dim"), [(64, 16), (16, 64)])
def test_embedding_head_begins_orthogonal_with_zero_bias(num_features, embedding_dim):
    head = EmbeddingHead(num_features, embedding_dim=embedding_dim)
    weight = head.linear.weight.detach().double()
    gram = weight @ weight.T if embedding_dim <= num_features else weight.T @ weight
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-5)
    assert not head.linear.bias.any()


def test_projection_head_is_simclrs_perceptron():
    """Linear, batch norm, ReLU, linear, batch norm, with no biases but those of the norms."""
    head = ProjectionHead(6, hidden_dim=8, embedding_dim=4)
    features = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    first, last = (module for module in head.modules() if isinstance(module, nn.Linear))
    hidden = standardize(features @ first.weight.T).relu()
    torch.testing.assert_close(head(features), standardize(hidden @ last.weight.T))


def standardize(batch):
    return (batch - batch.mean(0)) / (batch.var(0, correction=0) + 1e-5).sqrt()


def test_building_a_backbone_does_not_load_lightly():
    program = "import sys; from ssl_transfer.models import EmbeddingModel; print('lightly' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_unknown_name_in_the_package_is_an_attribute_error():
    import ssl_transfer.models

    with pytest.raises(AttributeError, match="no attribute 'Teacher'"):
        _ = ssl_transfer.models.Teacher
