"""Fine-tuning: the whole network is trained on a labeled part of the training split, unlike in a linear probe."""

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn

from ssl_transfer.probes.checks import check_classes, check_labels
from ssl_transfer.probes.features import extract_features
from ssl_transfer.probes.few_shot import images_per_class
from ssl_transfer.probes.splits import rank_in_class, shuffled

# An augmented view of some training images: (pixels, epoch, rows) -> images in [0, 1].
Augmentation = Callable[[UInt8[Tensor, "b c h w"], int, Int64[Tensor, " b"]], Float32[Tensor, "b c h w"]]


@dataclass(frozen=True)
class FinetuneResult:
    """The score of the network's last state, and what it was trained on."""

    accuracy: float
    labels: int
    epochs: int
    batch_size: int
    rate: float
    n_test: int
    seed: int


def finetune(
    model: nn.Module,
    train_pixels: UInt8[Tensor, "n_train c h w"],
    train_y: Int64[Tensor, " n_train"],
    test_pixels: UInt8[Tensor, "n_test c h w"],
    test_y: Int64[Tensor, " n_test"],
    *,
    augment: Augmentation,
    fraction: float = 0.1,
    epochs: int = 30,
    batch_size: int = 256,
    seed: int = 0,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> FinetuneResult:
    """Test accuracy of ``model`` and a linear layer trained together on ``fraction`` of each class.

    The protocol is that of SimCLR (Chen et al., ICML 2020, appendix B.5): SGD with Nesterov momentum 0.9, a learning
    rate of 0.05 x ``batch_size`` / 256 that falls to zero along a cosine, no weight decay, and random crops and flips,
    which ``augment`` makes; 60 ``epochs`` for 1 % of the labels, 30 for 10 %. ``model`` gives features of images in
    [0, 1]; a copy of it is trained, in training mode. The labeled images and all random masks are functions of
    ``seed``. Every forward pass is made inside ``autocast``, the arithmetic of the network.

    Raises:
        ValueError: labels are missing or of other classes than the training split's, or ``fraction``, ``epochs`` or
            ``batch_size`` is not in its range.
    """
    check_labels(train_y, len(train_pixels), "train")
    check_labels(test_y, len(test_pixels), "test")
    check_classes(train_y, test_y)
    if not 0 < fraction <= 1 or min(epochs, batch_size) < 1:
        raise ValueError(
            f"fraction is {fraction}, epochs {epochs} and batch_size {batch_size}; "
            "give a fraction above 0 and up to 1, and whole numbers of at least 1."
        )
    classes, code, sizes = train_y.unique(return_inverse=True, return_counts=True)
    wanted = images_per_class(fraction, sizes) if fraction < 1 else sizes
    labeled = (rank_in_class(train_y, seed, 0) < wanted[code]).nonzero()[:, 0]
    batch_size = min(batch_size, len(labeled))
    rate = 0.05 * batch_size / 256
    with torch.random.fork_rng():  # random masks (dropout, drop path) are functions of the seed, and leave no trace
        torch.manual_seed(seed)
        network = copy.deepcopy(model).requires_grad_(True).train()
        width = extract_features(copy.deepcopy(model).eval(), train_pixels[:1]).shape[1]
        classifier = nn.Linear(width, len(classes)).to(train_pixels.device)
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)
        whole = nn.Sequential(network, classifier)
        _train(whole, train_pixels, code, labeled, augment, rate, epochs, batch_size, seed, autocast)
        with autocast():
            logits = extract_features(whole.eval(), test_pixels)
    return FinetuneResult(
        accuracy=(classes[logits.argmax(dim=1)] == test_y).double().mean().item(),
        labels=len(labeled),
        epochs=epochs,
        batch_size=batch_size,
        rate=rate,
        n_test=len(test_y),
        seed=seed,
    )


def _train(
    network: nn.Module,
    pixels: Tensor,
    code: Tensor,
    labeled: Tensor,
    augment: Augmentation,
    rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True)
    steps_per_epoch = len(labeled) // batch_size  # batch norm sees whole batches only
    for step in range(epochs * steps_per_epoch):
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0:
            order = labeled[shuffled(len(labeled), seed, epoch).to(labeled.device)]
        rows = order[place * batch_size : (place + 1) * batch_size]
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / (epochs * steps_per_epoch))) / 2
        with autocast():
            loss = F.cross_entropy(network(augment(pixels[rows], epoch, rows)), code[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
