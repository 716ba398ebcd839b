"""Embedding a batch that does not fit: in parts, with the gradient of the whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_transfer.distributed import world_size


def embed(model: nn.Module, images: Tensor, micro_batch_size: int | None, *, views: int) -> Any:
    """What ``model`` gives for ``images``, keeping the activations of one part of them at a time.

    ``images`` are ``views`` views of equally many images, one after the other. ``model`` gives a row for each, or a
    tuple of such tables.

    A loss over pairs of half a batch is another loss, so accumulating gradients would be wrong. Here every part is
    embedded without keeping activations, the loss sees all embeddings, and on the way back each part is embedded
    again with a gradient: the gradient of the whole batch, for a second forward pass. Random masks are the same both
    times. Batch norm sees one part at a time, of all processes where it is synchronized: its statistics are those of
    ``micro_batch_size`` views, of the same images for any number of processes.

    Raises:
        ValueError: the parts cannot be shared evenly by the processes.
    """
    parts = number_of_parts(images, micro_batch_size, views=views)
    if parts == 1:
        return model(images)
    again = _second_pass(model)
    return in_parts(
        lambda part: checkpoint(model, part, use_reentrant=False, context_fn=lambda: (nullcontext(), again())),
        images,
        parts,
    )


def number_of_parts(images: Tensor, micro_batch_size: int | None, *, views: int) -> int:
    """How many parts of at most ``micro_batch_size`` rows, over all processes, the batch is cut into.

    Raises:
        ValueError: the processes cannot share the parts evenly.
    """
    world, own = world_size(), len(images) // views
    rows = world * len(images)
    parts = 1 if micro_batch_size is None else -(-rows // micro_batch_size)
    if world > 1 and own % parts:
        even = next((count for count in range(parts, own) if own % count == 0), own)
        raise ValueError(
            f"micro_batch_size {micro_batch_size} cuts the {rows} views of a batch into {parts} parts, which {world} "
            f"processes of {own} images cannot share evenly: choose {rows // even}."
        )
    return parts


def in_parts(network: Callable[[Tensor], Any], images: Tensor, parts: int) -> Any:
    """What ``network`` gives for ``images``, seeing every ``parts``-th of them at a time.

    Not consecutive ones: where each process has a number of images that ``parts`` divides, part k of all processes has
    the images that part k of one process would have.
    """
    places = torch.arange(len(images), device=images.device)
    order = torch.cat([places[first::parts] for first in range(parts)]).argsort()
    found = [network(images[first::parts]) for first in range(parts)]
    if isinstance(found[0], Tensor):
        return torch.cat(found)[order]
    return tuple(torch.cat(tables)[order] for tables in zip(*found, strict=True))


def _second_pass(model: nn.Module) -> Any:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    @contextmanager
    def tracking_nothing() -> Iterator[None]:
        """Running statistics have seen these images in the first pass."""
        kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        try:
            yield
        finally:
            for norm, (momentum, count) in zip(norms, kept, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count

    return tracking_nothing
