"""The attentive probe: a linear classifier of tokens that attention pools, trained with the network frozen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ssl_transfer.probes.checks import check_classes, check_features, check_labels
from ssl_transfer.probes.linear import judge, refuse_single_images
from ssl_transfer.probes.splits import held_out_tenth, shuffled

RATES = (3e-4, 1e-3, 3e-3, 1e-2)  # of Adam, for a batch of 256
QUERY_DEVIATION = 0.02  # at the start: nearly the mean over tokens, and no two queries alike


@dataclass(frozen=True)
class AttentiveProbeResult:
    """The accuracy of the last state of an attentive probe, and everything that was chosen for it."""

    accuracy: float
    rate: float
    held_out_accuracy: dict[float, float]
    queries: int
    epochs: int
    batch_size: int
    tokens: int
    n_train: int
    n_held_out: int
    n_test: int
    seed: int
    normalization: str = "layer norm of each token"

    @property
    def at_grid_edge(self) -> bool:
        """Whether the chosen rate is the smallest or the largest, so that a wider grid might do better."""
        return self.rate in (min(self.held_out_accuracy), max(self.held_out_accuracy))


class AttentivePool(nn.Module):
    """Several learned queries attend to the tokens, each for its own part of the channels, and a linear layer follows.

    A query weighs tokens by the softmax of its product with each whole token, and gives the weighted mean of its part
    of their channels. So the pooled vector is as wide as a token, the mean of the tokens where all queries are zero,
    and the classifier has the size of a linear probe's. This is multi-head cross-attention with learned queries, as
    attentive probes have it, without the projections that queries and classifier can take up: the efficient probing of
    Psomas et al. ("Attention, please! Revisiting attentive probing through the lens of efficiency", ICLR 2026).
    """

    def __init__(self, width: int, num_classes: int, *, queries: int, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.query = nn.Parameter(QUERY_DEVIATION * torch.randn(queries, width, generator=generator))
        self.linear = nn.Linear(width, num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b c"]:
        """Logits of tokens, each of which is normalized first."""
        tokens = F.layer_norm(tokens, tokens.shape[-1:])
        weight = (tokens @ self.query.T / math.sqrt(tokens.shape[-1])).softmax(dim=1)
        parts = tokens.unflatten(2, (len(self.query), -1))
        return self.linear(torch.einsum("btq,btqw->bqw", weight, parts).flatten(1))


def attentive_probe(
    train_tokens: Float[Tensor, "n_train t d"],
    train_y: Int64[Tensor, " n_train"],
    test_tokens: Float[Tensor, "n_test _ _"],
    test_y: Int64[Tensor, " n_test"],
    *,
    queries: int = 4,
    rates: Sequence[float] = RATES,
    epochs: int = 10,
    batch_size: int = 256,
    seed: int = 0,
) -> AttentiveProbeResult:
    """Test accuracy of an :class:`AttentivePool` on the tokens of a frozen network, patches or places of a map.

    For each of ``rates`` one is trained on nine tenths of each class and judged on the tenth that is held out, as for
    :func:`ssl_transfer.probes.linear_probe`; with the best rate, among equals that of the lowest cross-entropy, one is
    trained on all images and scored in its last state, once. The schedule is Adam without weight decay at a rate (of a
    batch of 256; others scale it by the square root) that falls to zero along a cosine. Orders and first weights are
    functions of ``seed``. The queries are the largest divisor of the width of at most ``queries``.

    Raises:
        ValueError: the splits cannot be scored against each other, a rate is not positive, ``queries``, ``epochs`` or
            ``batch_size`` is below 1, or every class has a single training image.
    """
    _check(train_tokens, train_y, "train")
    _check(test_tokens, test_y, "test")
    check_classes(train_y, test_y)
    if train_tokens.shape[1:] != test_tokens.shape[1:]:
        raise ValueError(
            f"train_tokens are {tuple(train_tokens.shape[1:])} an image and test_tokens {tuple(test_tokens.shape[1:])};"
            " take both from the same network."
        )
    if not rates or min(rates) <= 0:
        raise ValueError(f"rates are {list(rates)}; give one or more positive numbers.")
    if min(queries, epochs, batch_size) < 1:
        raise ValueError(
            f"queries is {queries}, epochs {epochs} and batch_size {batch_size}; all have to be at least 1."
        )
    held_out = held_out_tenth(train_y, seed=seed)
    refuse_single_images(held_out)
    classes, code = train_y.unique(return_inverse=True)
    width = train_tokens.shape[2]
    used = max(count for count in range(1, min(queries, width) + 1) if width % count == 0)

    def trained(tokens: Tensor, labels: Tensor, rate: float) -> AttentivePool:
        pool = AttentivePool(width, len(classes), queries=used, seed=seed).to(tokens.device)
        return _train(pool, tokens, labels, rate, epochs=epochs, batch_size=batch_size, seed=seed)

    def judged(pool: AttentivePool, tokens: Tensor, labels: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            logits = torch.cat([pool(part.float()) for part in tokens.split(batch_size)])
        return judge(logits, classes, labels)

    grid = sorted(rates)
    chosen_by = [
        judged(trained(train_tokens[~held_out], code[~held_out], rate), train_tokens[held_out], train_y[held_out])
        for rate in grid
    ]
    best = max(range(len(grid)), key=lambda place: (chosen_by[place], -place))
    final = trained(train_tokens, code, grid[best])
    return AttentiveProbeResult(
        accuracy=judged(final, test_tokens, test_y)[0],
        rate=grid[best],
        held_out_accuracy={rate: accuracy for rate, (accuracy, _) in zip(grid, chosen_by, strict=True)},
        queries=used,
        epochs=epochs,
        batch_size=batch_size,
        tokens=train_tokens.shape[1],
        n_train=len(train_y),
        n_held_out=int(held_out.sum()),
        n_test=len(test_y),
        seed=seed,
    )


def _train(
    pool: AttentivePool, tokens: Tensor, labels: Tensor, rate: float, *, epochs: int, batch_size: int, seed: int
) -> AttentivePool:
    optimizer = torch.optim.Adam(pool.parameters(), lr=rate)
    n = len(labels)
    steps_per_epoch = -(-n // batch_size)
    for epoch in range(epochs):
        for place, rows in enumerate(shuffled(n, seed, epoch).to(labels.device).split(batch_size)):
            progress = (epoch * steps_per_epoch + place) / (epochs * steps_per_epoch)
            factor = math.sqrt(batch_size / 256) * (1 + math.cos(math.pi * progress)) / 2
            optimizer.param_groups[0]["lr"] = factor * rate
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(pool(tokens[rows].float()), labels[rows]).backward()
            optimizer.step()
    return pool


def _check(tokens: Tensor, labels: Tensor, name: str) -> None:
    if tokens.ndim != 3:
        raise ValueError(f"{name}_tokens has the shape {tuple(tokens.shape)}; give images x tokens x channels.")
    check_features(tokens.flatten(1), f"{name}_tokens")
    check_labels(labels, len(tokens), name)
