"""The tokens of a network, patches or places of its last map, for measures that pool them themselves."""

from collections.abc import Callable

import torch
from jaxtyping import Float16
from torch import Tensor, nn

from ssl_transfer.data import Images
from ssl_transfer.features.extraction import placed
from ssl_transfer.features.model_features import ModelFeatures

MOST_BYTES = 4 * 2**30  # of the tokens of a split, which are held in memory


@torch.no_grad()
def split_tokens(features: ModelFeatures) -> tuple[Float16[Tensor, "n_train t d"], Float16[Tensor, "n_test t d"]]:
    """The tokens of both splits in half precision, by this process alone.

    Raises:
        ValueError: the features are a table, the network gives no maps, or the tokens take more than 4 GiB.
    """
    if features.network is None or features.images is None:
        raise ValueError(
            f"{features.name} is a table of features; an attentive probe needs the network and its images."
        )
    network = placed(features.network, features.images[0])
    maps = _maps_of(network, features.name)
    train, test = (_tokens(maps, images, features.name) for images in features.images)
    return train, test


def _maps_of(network: nn.Module, name: str) -> Callable[[Tensor], list[Tensor]]:
    backbone = getattr(getattr(network, "model", None), "backbone", network)
    maps = getattr(backbone, "feature_maps", None)
    if maps is None:
        raise ValueError(f"{name} gives no feature maps, so there are no tokens to pool.")
    return maps


def _tokens(maps: Callable[[Tensor], list[Tensor]], images: Images, name: str) -> Float16[Tensor, "n t d"]:
    found: list[Tensor] = []
    for pixels in images.parts(slice(len(images))):
        for part in pixels.split(128):
            last = maps(part.float() / 255)[-1]
            size = 2 * last[0].numel() * len(images)
            if not found and size > MOST_BYTES:
                raise ValueError(
                    f"the tokens of {len(images)} images of {images.name} by {name} take {size / 2**30:.1f} GiB, and "
                    f"at most {MOST_BYTES / 2**30:.0f} are held: look at fewer images, or smaller ones."
                )
            found.append(last.flatten(2).transpose(1, 2).half())
    return torch.cat(found)
