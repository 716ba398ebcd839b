"""One model's features of images: computed once, in float32 unless asked otherwise, by all processes, and kept.

Recipes and the programs in ``eval/`` get them here, so both print the same numbers.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float32
from torch import Tensor, nn

from ssl_transfer.arithmetic import GPU_CONVOLUTION, GPU_MATMUL, products_in
from ssl_transfer.data import Images
from ssl_transfer.distributed import (
    from_main_process,
    gather_shards,
    meet,
    rank,
    shard,
    this_machine,
    world_size,
)
from ssl_transfer.features.identity import structure_hash, weights_hash
from ssl_transfer.features.kept import KeptFeatures, Place, read_at
from ssl_transfer.files import named, take_room
from ssl_transfer.models import EmbeddingModel, Output
from ssl_transfer.probes import PooledLayer, extract_features, raw_pixels

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]  # in which a network computes its features, which are kept in float32
IN_MEMORY = 4 * 2**30  # bytes of features of a split that are held, where the images are
BATCH = 512  # images at a time


def layer_of(model: EmbeddingModel | None, layer: str) -> nn.Module:
    """The network that gives ``layer`` of ``model`` for images in [0, 1]; without a model, their pixels."""
    if model is None:
        return nn.Flatten()
    if layer == "output":
        return model
    if layer == "features":
        return model.backbone
    if layer in ("projection", "embedding", "logits"):
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
    precision: Precision = "float32",
    must_keep: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Float32[Tensor, "n d"]:
    """Features from ``folder`` or, failing that, computed and kept there under ``key`` and the images' fingerprint.

    ``advance`` is called with numbers of images that are computed, of this process and the others together. Features of
    more than :data:`IN_MEMORY` bytes stay in the file and are mapped from it, on the CPU; machines other than the main
    process's, which do not see the file, map a temporary one of their own. Smaller ones, and those that cannot be kept,
    are in memory, where the images are.

    Raises:
        OSError: they cannot be written there, and ``must_keep`` is on or a part of them was; another machine has no
            room for its file; or the file was replaced.
    """
    meet()  # one process may have measured for hours meanwhile
    if folder is None:
        return _compute(network, images, advance, precision)
    with KeptFeatures(folder, key, images) as kept:
        missing = from_main_process(kept.missing)
        unkept: list[Tensor] = []
        for number, features in _computed(network, images, kept.parts, missing, advance, precision):
            if rank() > 0:  # the main process alone looks and writes
                continue
            try:
                kept.write(number, features)
            except OSError as error:
                if must_keep or kept.begun:
                    raise
                if not unkept:
                    log.warning("%s cannot be written (%s); the features are not kept", error.filename, error.strerror)
                unkept.append(features)
        place = from_main_process(lambda: None if unkept else kept.place)
        if place is not None and 4 * math.prod(place.shape) > IN_MEMORY:
            return _mapped(kept, place, images.pixels.device)
        found = None
        if rank() == 0:
            found = (torch.cat(unkept) if unkept else kept.read().clone()).to(images.pixels.device)
    if world_size() > 1:
        shape = from_main_process(lambda: None if found is None else found.shape)
        found = torch.empty(shape, device=images.pixels.device) if found is None else found  # type: ignore[arg-type]
        dist.broadcast(found, 0)
    assert found is not None
    return found


def _computed(
    network: nn.Module,
    images: Images,
    parts: Sequence[slice],
    missing: Sequence[int],
    advance: Callable[[int], None],
    precision: Precision,
) -> Iterator[tuple[int, Float32[Tensor, "m d"]]]:
    """The features of each of the ``missing`` parts on every process, each having computed its share of it."""
    network = placed(network, images)
    shares = [torch.arange(parts[number].start, parts[number].stop) for number in missing]
    shares = [rows[shard(len(rows))] for rows in shares]
    batches = [rows for share in shares for rows in share.split(BATCH) if len(rows)]

    def extract(pixels: Tensor) -> Float32[Tensor, "m d"]:
        with computing_in(precision, images):
            return extract_features(network, pixels, advance=lambda count: advance(count * world_size()))

    with closing(images.reader(lambda step: batches[step], steps=len(batches))) as pixels_of:
        step = 0
        for number, share in zip(missing, shares, strict=True):
            steps = range(step, step + -(-len(share) // BATCH))
            step = steps.stop
            # A process beyond the last image still has to know the width.
            own = [extract(pixels_of(one)) for one in steps] or [extract(images.pixels[:1])[:0]]
            yield number, gather_shards(torch.cat(own), parts[number].stop - parts[number].start)


def _mapped(kept: KeptFeatures, place: Place, device: torch.device) -> Float32[Tensor, "n d"]:
    """All features: mapped where the main process's file is seen; on other machines from a file that each makes."""
    machine = this_machine()
    if machine.with_main:
        rows = kept.read() if rank() == 0 else read_at(place)
    else:
        copy = machine.share(_room_for(place.shape) if machine.first else None)
        rows = torch.from_numpy(np.memmap(copy, np.float32, "r+", shape=place.shape))
    if machine.count == 1:
        return rows
    copies = machine.first and not machine.with_main
    meet()
    if copies:
        copy.unlink()  # all have mapped it, and it goes with them
    for part in kept.parts:
        passed = rows[part].to(device, copy=True)
        dist.broadcast(passed, 0)
        if copies:
            rows[part] = passed.cpu()
    meet()  # so that it is whole for all
    return rows


def _room_for(shape: tuple[int, int]) -> Path:
    """A file on this machine's disk for so many numbers.

    Raises:
        OSError: there is no room.
    """
    descriptor, name = tempfile.mkstemp(prefix="ssl-transfer-features-")
    with open(descriptor, "wb") as file, named(Path(name)):
        file.truncate(4 * math.prod(shape))
        try:
            take_room(descriptor)
        except OSError:
            Path(name).unlink()
            raise
    return Path(name)


def features_key(model: EmbeddingModel, layer: str, precision: Precision = "float32") -> dict[str, str]:
    """What decides the features of an image, in words; with the images' fingerprint, the key to keep them under."""
    prepared = model.backbone.preprocessing
    return {
        "weights": weights_hash(model),
        "structure": structure_hash(model),
        "network": model.backbone.name,
        "preprocessing": f"mean {prepared.mean}, std {prepared.std}, input size {prepared.input_size}",
        "layer": layer,
        "precision": precision,
    }


def placed(network: nn.Module, images: Images) -> nn.Module:
    """``network`` where ``images`` are, in eval mode and the memory layout that features are computed in."""
    return network.to(images.pixels.device).to(memory_format=torch.channels_last).eval()


@contextmanager
def computing_in(precision: Precision, images: Images) -> Iterator[None]:
    """What a network computes features of ``images`` in: float32 all through, or bfloat16 where autocast has it so."""
    with exact(), torch.autocast(images.pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def exact() -> AbstractContextManager[None]:
    """Whatever a run trains in, it is scored in float32 all through, without the shorter products of a GPU."""
    return products_in("ieee", GPU_MATMUL, GPU_CONVOLUTION)


def _compute(
    network: nn.Module,
    images: Images,
    advance: Callable[[int], None] = lambda count: None,
    precision: Precision = "float32",
) -> Float32[Tensor, "n d"]:
    [(_, features)] = _computed(network, images, [slice(0, len(images))], [0], advance, precision)
    return features


def _pixels(images: Images) -> Float32[Tensor, "n d"]:
    return torch.cat([raw_pixels(pixels) for pixels in images.parts(slice(len(images)))])
