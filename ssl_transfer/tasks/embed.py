"""Embedding a batch that does not fit: in parts, with the gradient of the whole."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def embed(model: nn.Module, images: Tensor, micro_batch_size: int | None) -> Any:
    """What ``model`` gives for ``images``, keeping the activations of only ``micro_batch_size`` of them at a time.

    ``model`` gives a row for each image, or a tuple of such tables.

    A loss over pairs of half a batch is another loss, so accumulating gradients would be wrong. Here every part is
    embedded without keeping activations, the loss sees all embeddings, and on the way back each part is embedded
    again with a gradient: the gradient of the whole batch, for a second forward pass. Random masks are the same both
    times. Batch norm sees one part at a time, so its statistics are those of ``micro_batch_size`` images.
    """
    if micro_batch_size is None or micro_batch_size >= len(images):
        return model(images)
    again = _second_pass(model)
    parts = [
        checkpoint(model, part, use_reentrant=False, context_fn=lambda: (nullcontext(), again()))
        for part in images.split(micro_batch_size)
    ]
    return torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(map(torch.cat, zip(*parts, strict=True)))


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
