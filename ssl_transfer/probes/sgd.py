"""Linear probes trained by SGD, as published ones are: many learning rates at once, none chosen on the test split."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_splits
from ssl_transfer.probes.linear import judge_each, predict, refuse_single_images, standardization, top_1
from ssl_transfer.probes.rows import Rows
from ssl_transfer.probes.scaling import floating
from ssl_transfer.probes.splits import held_out_tenth, shuffled

# The thirteen learning rates of DINOv2, for a batch of 256; another batch size scales them.
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
MOMENTUM = 0.9
INITIAL_DEVIATION = 0.01

# Features of some training images as one epoch shows them: (epoch, rows) -> features.
View = Callable[[int, Int64[Tensor, " b"]], Float[Tensor, "b d"]]


@dataclass(frozen=True)
class SgdProbeResult:
    """The accuracy of the last state of a linear layer, and everything that was chosen for it.

    ``predicted`` is the class that it gives each test row.
    """

    accuracy: float
    rate: float
    held_out_accuracy: dict[float, float]
    epochs: int
    batch_size: int
    n_train: int
    n_held_out: int
    n_test: int
    seed: int
    predicted: Int64[Tensor, " n_test"] = field(repr=False, compare=False)
    normalization: str = "standardized"

    @property
    def at_grid_edge(self) -> bool:
        """Whether the chosen rate is the smallest or the largest, so that a wider grid might do better."""
        return self.rate in (min(self.held_out_accuracy), max(self.held_out_accuracy))


@torch.no_grad()
def sgd_probe(
    train_x: Float[Tensor, "n_train d"],
    train_y: Int64[Tensor, " n_train"],
    test_x: Float[Tensor, "n_test d"],
    test_y: Int64[Tensor, " n_test"],
    *,
    rates: Sequence[float] = RATES,
    epochs: int = 10,
    batch_size: int = 256,
    seed: int = 0,
    view: View | None = None,
) -> SgdProbeResult:
    """Test accuracy of a linear layer trained by SGD, its learning rate chosen on a tenth of the training split.

    The protocol is that of DINOv2 (Oquab et al., 2023, dinov2/eval/linear.py): momentum 0.9, no weight decay, rates
    that fall to zero along a cosine, and one layer for each of ``rates`` (of a ``batch_size`` of 256; others scale
    them), all trained on the same batches. Each rate has two layers. One never sees the held-out tenth and is judged on
    it: the highest accuracy wins, among equals the lowest cross-entropy, and then the smallest rate. The other is
    trained on every row; that of the chosen rate is scored on the test split in its last state. What is drawn is a
    function of ``seed``.

    Features are standardized by the statistics of ``train_x``. Those of DINOv2 come from a layer norm and have a scale
    of one, others do not: without this the best rate of one network is 300 times that of another.

    With ``view`` this is the probe of MoCo and SimCLR, which sees augmented images: ``view`` gives the features of some
    training rows as an epoch shows them. ``train_x`` is then used for the statistics and the choice alone.

    Raises:
        ValueError: the splits cannot be scored against each other, a rate is not positive, ``epochs`` or ``batch_size``
            is below 1, or every class has a single training image.
    """
    check_splits(train_x, train_y, test_x, test_y)
    if not rates or min(rates) <= 0:
        raise ValueError(f"rates are {list(rates)}; give one or more positive numbers.")
    if min(epochs, batch_size) < 1:
        raise ValueError(f"epochs is {epochs} and batch_size {batch_size}; both have to be at least 1.")
    held_out = held_out_tenth(train_y, seed=seed)
    refuse_single_images(held_out)
    mean, scale = standardization(Rows(train_x, change=floating))

    def standardized(x: Tensor) -> Tensor:
        return ((x - mean) / scale).float()

    classes, code = train_y.unique(return_inverse=True)
    grid = sorted(rates)
    layers = _Layers(grid, train_x.shape[1], len(classes), seed=seed, device=train_x.device)
    n = len(train_y)
    steps_per_epoch = -(-n // batch_size)
    for epoch in range(epochs):
        order = shuffled(n, seed, epoch).to(train_x.device)
        for place, rows in enumerate(order.split(batch_size)):
            x = train_x[rows] if view is None else view(epoch, rows)
            progress = (epoch * steps_per_epoch + place) / (epochs * steps_per_epoch)
            factor = batch_size / 256 * (1 + math.cos(math.pi * progress)) / 2
            layers.step(standardized(x), code[rows], ~held_out[rows], factor)
    unseen = Rows(train_x, held_out.nonzero()[:, 0], standardized)
    choosing = range(len(grid))
    judged = judge_each(lambda x: (layers.logits(x, i) for i in choosing), unseen, classes, train_y[held_out])
    best = max(choosing, key=lambda i: (judged[i], -i))
    predicted = predict(lambda x: [layers.logits(x, len(grid) + best)], Rows(test_x, change=standardized), classes)
    return SgdProbeResult(
        accuracy=top_1(predicted, test_y),
        rate=grid[best],
        held_out_accuracy={rate: accuracy for rate, (accuracy, _) in zip(grid, judged, strict=True)},
        epochs=epochs,
        batch_size=batch_size,
        n_train=n,
        n_held_out=int(held_out.sum()),
        n_test=len(test_y),
        seed=seed,
        predicted=predicted,
    )


class _Layers:
    """Two linear layers for each learning rate, as one matrix: those that choose, then those that see every row."""

    def __init__(self, rates: Sequence[float], d: int, c: int, *, seed: int, device: torch.device):
        generator = torch.Generator().manual_seed(seed)
        weight = INITIAL_DEVIATION * torch.randn(c, d, generator=generator)
        self.weight = weight.repeat(2 * len(rates), 1, 1).to(device)
        self.bias = torch.zeros(2 * len(rates), c, device=device)
        self.rate = torch.tensor([*rates, *rates], device=device)
        self.weight_velocity, self.bias_velocity = torch.zeros_like(self.weight), torch.zeros_like(self.bias)

    def step(
        self, x: Float[Tensor, "b d"], label: Int64[Tensor, " b"], seen: Bool[Tensor, " b"], factor: float
    ) -> None:
        """One step of SGD with momentum on the mean cross-entropy of the rows that each layer sees."""
        share = torch.stack([seen.float() / seen.sum().clamp(min=1), torch.full_like(x[:, 0], 1 / len(x))])
        logits = (x @ self.weight.flatten(0, 1).T).unflatten(1, self.bias.shape) + self.bias
        residual = logits.softmax(dim=2) - F.one_hot(label, self.bias.shape[1])[:, None]
        residual *= share.repeat_interleave(len(self.rate) // 2, dim=0).T[:, :, None]
        gradient = (residual.flatten(1).T @ x).view_as(self.weight)
        self.weight_velocity.mul_(MOMENTUM).add_(gradient)
        self.bias_velocity.mul_(MOMENTUM).add_(residual.sum(dim=0))
        rate = factor * self.rate
        self.weight -= rate[:, None, None] * self.weight_velocity
        self.bias -= rate[:, None] * self.bias_velocity

    def logits(self, x: Float[Tensor, "n d"], layer: int) -> Float[Tensor, "n c"]:
        """What one of the layers says of every row."""
        return x @ self.weight[layer].T + self.bias[layer]
