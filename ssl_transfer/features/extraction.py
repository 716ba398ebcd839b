"""One model's features of images: computed once, in float32, by all processes, and kept.

Recipes and the programs in ``eval/`` get them here, so both print the same numbers.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list
from jaxtyping import Float32
from torch import Tensor, nn

from ssl_transfer.arithmetic import GPU_CONVOLUTION, GPU_MATMUL, products_in
from ssl_transfer.data import Images
from ssl_transfer.distributed import gather_shards, meet, shard, world_size
from ssl_transfer.features.cache import read_features, structure_hash, weights_hash, write_features
from ssl_transfer.models import EmbeddingModel, Output
from ssl_transfer.probes import PooledLayer, extract_features, raw_pixels


def layer_of(model: EmbeddingModel | None, layer: str) -> nn.Module:
    """The network that gives ``layer`` of ``model`` for images in [0, 1]; without a model, their pixels."""
    if model is None:
        return nn.Flatten()
    if layer == "output":
        return model
    if layer in ("features", "projection", "embedding", "logits"):
        return Output(model, layer)
    return PooledLayer(model.backbone, model.backbone.network, layer)


@torch.no_grad()
def compute_features(
    model: EmbeddingModel | None, images: Images, *, layer: str = "features"
) -> Float32[Tensor, "n d"]:
    """Features of all images on every process, each having computed its part; without a model, the pixels."""
    return _pixels(images) if model is None else _compute(layer_of(model, layer), images)


def kept_features(
    network: nn.Module,
    images: Images,
    *,
    key: Mapping[str, str],
    folder: Path | None,
    must_keep: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Float32[Tensor, "n d"]:
    """Features from ``folder`` or, failing that, computed and kept there under ``key`` and the images' fingerprint.

    ``advance`` is called with numbers of images that are computed, of this process and the others together.

    Raises:
        OSError: they cannot be written there, and ``must_keep`` is on.
    """
    meet()  # one process may have measured for hours meanwhile
    if folder is None:
        return _compute(network, images, advance)
    key = {**key, "data": images.fingerprint, "split": images.split}
    state = PartialState()
    found = read_features(folder, key) if state.is_main_process else None  # which alone looks and writes
    shape = broadcast_object_list([None if found is None else tuple(found.shape)])[0]
    if shape is None:
        features = _compute(network, images, advance)
        if state.is_main_process:
            write_features(folder, key, features, must_keep=must_keep)
        return features
    device = images.pixels.device
    return broadcast(torch.empty(shape, device=device) if found is None else found.to(device))


def features_key(model: EmbeddingModel, layer: str) -> dict[str, str]:
    """What decides the features of an image, in words; with the images' fingerprint, the key to keep them under."""
    prepared = model.backbone.preprocessing
    return {
        "weights": weights_hash(model),
        "structure": structure_hash(model),
        "network": model.backbone.name,
        "preprocessing": f"mean {prepared.mean}, std {prepared.std}, input size {prepared.input_size}",
        "layer": layer,
        "precision": "float32",
    }


def placed(network: nn.Module, images: Images) -> nn.Module:
    """``network`` where ``images`` are, in eval mode and the memory layout that features are computed in."""
    return network.to(images.pixels.device).to(memory_format=torch.channels_last).eval()


def exact() -> AbstractContextManager[None]:
    """Whatever a run trains in, it is scored in float32 all through, without the shorter products of a GPU."""
    return products_in("ieee", GPU_MATMUL, GPU_CONVOLUTION)


def _compute(
    network: nn.Module, images: Images, advance: Callable[[int], None] = lambda count: None
) -> Float32[Tensor, "n d"]:
    network = placed(network, images)
    own = shard(len(images))

    def shared(count: int) -> None:
        advance(count * world_size())

    with exact():
        parts = [extract_features(network, pixels, advance=shared) for pixels in images.parts(own)]
        if not parts:  # a process beyond the last image still has to know the width
            parts = [extract_features(network, images.pixels[:1])[:0]]
    return gather_shards(torch.cat(parts), len(images))


def _pixels(images: Images) -> Float32[Tensor, "n d"]:
    return torch.cat([raw_pixels(pixels) for pixels in images.parts(slice(len(images)))])
