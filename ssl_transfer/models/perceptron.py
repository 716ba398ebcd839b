"""A projection head from another tool's checkpoint."""

import re
from collections import OrderedDict
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn


class Perceptron(nn.Module):
    """The perceptron whose weights are given: linear layers with the batch norms saved between them.

    A ReLU follows every layer but the last (after its batch norm if there is one), as in SimCLR, MoCo, SimSiam and
    SwAV. The activations have no weights, so a file does not tell; heads are given only by the rows of
    :mod:`ssl_transfer.catalog.checkpoint_formats` whose tools do it so. ``weights`` have the names of an
    ``nn.Sequential``, or of a single linear layer; ``widths`` are those of the input and of each linear layer's output.

    Raises:
        ValueError: the weights are not those of a chain of linear layers and batch norms.
    """

    output_name = "projection"

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        if "weight" in weights:  # a single linear layer, without a number
            weights = {f"0.{name}": value for name, value in weights.items()}
        numbers = sorted({int(name.partition(".")[0]) for name in weights if re.match(r"\d+\.", name)})
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number in numbers:
            name = f"{number}."
            layer = _layer({key[len(name) :]: value for key, value in weights.items() if key.startswith(name)})
            if isinstance(layer, nn.Linear) and layers:
                layers[f"{number}_relu"] = nn.ReLU()
            layers[str(number)] = layer
        linear = [layer for layer in layers.values() if isinstance(layer, nn.Linear)]
        if not linear or any(a.out_features != b.in_features for a, b in zip(linear, linear[1:], strict=False)):
            raise ValueError("the projection head is no chain of linear layers")
        self.widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
        self.embedding_dim = self.widths[-1]
        self.layers = nn.Sequential(layers)

    def forward(self, features: Float[Tensor, "n d_features"]) -> Float[Tensor, "n d"]:
        """Project features, not normalized."""
        return self.layers(features)


def _layer(weights: dict[str, Tensor]) -> nn.Module:
    """The linear layer or batch norm with these weights in it."""
    weight = weights.get("weight")
    layer: nn.Module
    if weight is not None and weight.ndim == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in weights)
    elif "running_mean" in weights:
        layer = nn.BatchNorm1d(len(weights["running_mean"]), affine=weight is not None)
        weights.setdefault("num_batches_tracked", layer.state_dict()["num_batches_tracked"])
    else:
        raise ValueError(f"the projection head has a layer of {', '.join(weights) or 'nothing'}")
    layer.load_state_dict(weights)
    return layer
