"""Multinomial logistic regression with an L2 penalty: one problem at many strengths, or many problems at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_transfer.probes.lbfgs import History, Minimum, Precondition, minimize
from ssl_transfer.probes.rows import Rows

# A fit ends when its next step promises less than this share of the objective. The promise is an estimate: on five
# tables of 50,000 rows no fit ended more than 4e-7 above its minimum, and 1e-6 is what we want.
TOLERANCE = 3e-9
# Rows from which the rough curvature is taken.
CURVATURE_ROWS = 8192
# The largest matrix that is decomposed, in about a second: time grows with its cube, and Ctrl-C is not heard meanwhile.
LARGEST_DECOMPOSED = 2048
# Numbers in one tile of logits: rows are walked in tiles that stay in a processor's cache.
TILE_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 26}
# Numbers of classes for which a CPU's matrix library takes half the time if the rows come first.
ROWS_FIRST = range(6, 17)


@dataclass(frozen=True)
class LogisticFit:
    """``s`` classifiers: for each class its weights, then its bias; the objective that was reached; and the end.

    ``converged`` is false where a fit ran out of evaluations.
    """

    parameters: Float[Tensor, "s c d_plus_1"]
    objective: Float[Tensor, " s"]
    converged: Bool[Tensor, " s"]

    def logits(self, x: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "n c"]]:
        """The logits of the rows by one classifier after another."""
        return (x @ p[:, :-1].T + p[:, -1] for p in self.parameters.to(x))

    def predict(self, x: Float[Tensor, "n d"]) -> Int64[Tensor, "s n"]:
        """The class that each classifier gives each row."""
        return torch.stack([logits.argmax(dim=1) for logits in self.logits(x)])


def fit_path(
    x: Float[Tensor, "n d"] | Rows,
    labels: Int64[Tensor, " n"],
    strengths: Float[Tensor, " s"],
    *,
    num_classes: int,
    start: Float[Tensor, "c d_plus_1"] | None = None,
    max_evaluations: int = 2000,
) -> LogisticFit:
    """Minimize mean cross-entropy + strength / 2 |weight|^2 for each strength; the bias is not penalized.

    scikit-learn's ``LogisticRegression(C)`` minimizes the same objective for C = 1 / (strength n), so that a strength
    means the same amount of smoothing whatever the number of rows. ``labels`` are 0 to ``num_classes`` - 1. The first
    problem starts at ``start``, by default at zero.

    The problems are solved from the strongest penalty to the weakest. Each starts where the line through the last two
    solutions points, and inherits the history of L-BFGS, since the curvature differs only by the known change of the
    penalty. Parameters, values and sums over tiles are float64; logits have the type of ``x``. Where rows are fewer
    than features, their coordinates in the space that they span take the place of the features. This is the same
    problem, as no solution leaves that space. :class:`Rows` that are not held are made again for every evaluation.
    """
    x = x if isinstance(x, Rows) else Rows(x)
    n, d = x.shape
    if n < d and n <= LARGEST_DECOMPOSED:
        span = _Span(x[:])
        start = None if start is None else span.inside(start)
        fit = fit_path(
            span.coordinates.to(x.dtype),
            labels,
            strengths,
            num_classes=num_classes,
            start=start,
            max_evaluations=max_evaluations,
        )
        return LogisticFit(span.outside(fit.parameters), fit.objective, fit.converged)
    sample = x[:: max(1, n // CURVATURE_ROWS)]
    spectrum = _spectrum(sample)
    history = History(1, num_classes * (d + 1), dtype=x.dtype, device=x.device)
    if start is None:
        start = torch.zeros(num_classes, d + 1, dtype=torch.float64, device=x.device)
    solutions: list[Tensor] = []
    ends: dict[float, Minimum] = {}
    last = None
    for strength in sorted(strengths.tolist(), reverse=True):
        if last is not None:
            history.bend(partial(_penalty, strength - last, num_classes))
            start = 2 * solutions[-1] - solutions[-2] if len(solutions) > 1 else solutions[-1]
        ends[strength] = minimize(
            partial(_evaluate, x, labels[None], strengths.new_tensor([strength], dtype=torch.float64)),
            start.reshape(1, -1),
            precondition=_kronecker(sample, spectrum, start, strength),
            tolerance=TOLERANCE,
            noise=torch.finfo(x.dtype).eps,
            max_evaluations=max_evaluations,
            history=history,
        )
        solutions.append(ends[strength].point.view_as(start))
        last = strength
    return _collect([ends[strength] for strength in strengths.tolist()], num_classes)


def fit_each(
    x: Float[Tensor, "s n d"],
    labels: Int64[Tensor, "s n"],
    strengths: Float[Tensor, " s"],
    *,
    num_classes: int,
    max_evaluations: int = 2000,
) -> LogisticFit:
    """Solve ``s`` small problems together, each with its own rows and strength; see :func:`fit_path`."""
    s, _, d = x.shape
    found = minimize(
        partial(_evaluate, x, labels, strengths.double()),
        torch.zeros(s, num_classes * (d + 1), dtype=torch.float64, device=x.device),
        precondition=lambda gradient, problem: gradient * num_classes,
        tolerance=TOLERANCE,
        noise=torch.finfo(x.dtype).eps,
        max_evaluations=max_evaluations,
        history=History(s, num_classes * (d + 1), dtype=x.dtype, device=x.device),
    )
    return _collect([found], num_classes)


def fit_binary_path(
    x: Float[Tensor, "n d"],
    presence: Int64[Tensor, "n c"],
    strengths: Float[Tensor, " s"],
    *,
    max_evaluations: int = 2000,
) -> LogisticFit:
    """One-vs-rest: for each of ``c`` classes and each strength a classifier of the rows that have it and those without.

    ``presence`` is 1 where a row has a class, -1 where it has not and 0 where that is not to be looked at. Each
    classifier minimizes the sum over its rows of the logistic loss, divided by all ``n``, + strength / 2 |weight|^2. So
    it is scikit-learn's for C = 1 / (strength n). The classes of one strength are solved together, since they share
    every product with ``x``, and the strengths from the strongest on, each from the solution of the last.
    """
    n, d = x.shape
    if n < d and n <= LARGEST_DECOMPOSED:
        span = _Span(x)
        fit = fit_binary_path(span.coordinates.to(x), presence, strengths, max_evaluations=max_evaluations)
        return LogisticFit(span.outside(fit.parameters), fit.objective, fit.converged)
    sample = x[:: max(1, n // CURVATURE_ROWS)]
    spectrum = _spectrum(sample)
    signs = presence.T.to(x)
    classes = presence.shape[1]
    start = torch.zeros(classes, d + 1, dtype=torch.float64, device=x.device)
    ends: dict[float, Minimum] = {}
    for strength in sorted(strengths.tolist(), reverse=True):
        ends[strength] = minimize(
            partial(_evaluate_binary, x, signs, strength),
            start,
            precondition=_binary_precondition(sample, spectrum, start, strength),
            tolerance=TOLERANCE,
            noise=torch.finfo(x.dtype).eps,
            max_evaluations=max_evaluations,
            history=History(classes, d + 1, dtype=x.dtype, device=x.device),
        )
        start = ends[strength].point
    found = [ends[strength] for strength in strengths.tolist()]
    return LogisticFit(
        parameters=torch.stack([end.point for end in found]),
        objective=torch.stack([end.value.sum() for end in found]),
        converged=torch.stack([end.converged.all() for end in found]),
    )


class _Span:
    """The space that some rows span, and their coordinates in it."""

    def __init__(self, x: Float[Tensor, "n d"]):
        self.x = x
        # In float64, as squares are; in parts, for Ctrl-C to be heard between them.
        squares, vectors = torch.linalg.eigh(sum(part @ part.T for part in x.double().split(1024, dim=1)))
        kept = squares > 1e-13 * squares[-1].clamp(min=torch.finfo(torch.float64).tiny)
        self.lengths, self.vectors = squares[kept].sqrt(), vectors[:, kept]
        self.coordinates = self.vectors * self.lengths

    def inside(self, parameters: Float[Tensor, "c d_plus_1"]) -> Float[Tensor, "c r_plus_1"]:
        """Weights of features as weights of coordinates, each followed by its bias."""
        weight = (self.x.double() @ parameters[:, :-1].T).T @ self.vectors / self.lengths
        return torch.cat([weight, parameters[:, -1:]], dim=1)

    def outside(self, parameters: Float[Tensor, "s c r_plus_1"]) -> Float[Tensor, "s c d_plus_1"]:
        """Weights of coordinates as weights of features."""
        weight = parameters[:, :, :-1] / self.lengths @ self.vectors.T @ self.x.double()
        return torch.cat([weight, parameters[:, :, -1:]], dim=2)


class _Spectrum(NamedTuple):
    """Curvature of a quadratic: along some orthonormal vectors, and on average along those orthogonal to them."""

    along: Float[Tensor, " r"]
    vectors: Float[Tensor, "d r"]
    rest: Float[Tensor, ""] | None  # None where there are no others


def _spectrum(sample: Float[Tensor, "m d"]) -> _Spectrum:
    """That of E[x x^T]; where features are too many to decompose it, from the space that some of the rows span."""
    m, d = sample.shape
    if d <= LARGEST_DECOMPOSED:
        along, vectors = torch.linalg.eigh(sample.T @ sample / m)
        return _Spectrum(along, vectors, None)
    rows = sample[:: -(-m // LARGEST_DECOMPOSED)]
    squares, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = squares > 1e-6 * squares[-1]
    vectors = rows.T @ (vectors[:, kept] / squares[kept].sqrt())
    parts = sample.split(1024)
    along = torch.stack([(part @ vectors).square().sum(dim=0) for part in parts]).sum(dim=0) / m
    total = torch.stack([part.square().sum() for part in parts]).sum() / m
    return _Spectrum(along, vectors, (total - along.sum()).clamp(min=0) / (d - len(along)))


def _collect(ends: list[Minimum], num_classes: int) -> LogisticFit:
    return LogisticFit(
        parameters=torch.cat([end.point for end in ends]).unflatten(1, (num_classes, -1)),
        objective=torch.cat([end.value for end in ends]),
        converged=torch.cat([end.converged for end in ends]),
    )


def _evaluate(
    x: Float[Tensor, "s n d"] | Rows,
    labels: Int64[Tensor, "s n"],
    strengths: Float[Tensor, " s"],
    point: Float[Tensor, "a p"],
    problem: Int64[Tensor, " a"],
) -> tuple[Float[Tensor, " a"], Float[Tensor, "a p"]]:
    """Values and gradients of the problems numbered ``problem`` at ``point``: for each class weights, then the bias."""
    if isinstance(x, Tensor) and len(problem) < len(x):
        x, labels, strengths = x[problem], labels[problem], strengths[problem]
    n, d = x.shape[-2:]
    parameters = point.unflatten(1, (-1, d + 1))
    weight, bias = parameters[:, :, :-1].to(x.dtype), parameters[:, :, -1:].to(x.dtype)
    value = torch.zeros_like(strengths)
    gradient = torch.zeros_like(parameters)
    rows_at_once = max(256, TILE_NUMBERS[x.device.type] // weight.shape[:2].numel())
    if isinstance(x, Rows):
        rows_at_once = min(rows_at_once, x.at_once)
    for start in range(0, n, rows_at_once):
        tile = slice(start, start + rows_at_once)
        rows = x[:, tile] if isinstance(x, Tensor) else x[tile][None]
        label = labels[:, None, tile]
        logits = _product(weight, rows).add_(bias)
        largest = logits.amax(dim=1, keepdim=True)
        right = logits.gather(1, label) - largest
        exponential = logits.sub_(largest).exp_().scatter_(1, label, 0.0)
        # The wrong classes are summed alone: where they are all but impossible, one plus them would be just one.
        wrong = exponential.sum(dim=1, keepdim=True)
        value += ((wrong + right.expm1()).log1p() - right).sum(dim=(1, 2), dtype=torch.float64)
        total = wrong + right.exp()
        residual = exponential.div_(total).scatter_(1, label, -wrong / total)
        gradient[:, :, :-1] += residual @ rows
        gradient[:, :, -1] += residual.sum(dim=2)
    value = value / n + strengths / 2 * parameters[:, :, :-1].square().sum(dim=(1, 2))
    gradient /= n
    gradient[:, :, :-1] += strengths[:, None, None] * parameters[:, :, :-1]
    return value, gradient.flatten(start_dim=1)


def _evaluate_binary(
    x: Float[Tensor, "n d"],
    signs: Float[Tensor, "c n"],
    strength: float,
    point: Float[Tensor, "a d_plus_1"],
    problem: Int64[Tensor, " a"],
) -> tuple[Float[Tensor, " a"], Float[Tensor, "a d_plus_1"]]:
    """Values and gradients of the classifiers numbered ``problem`` at ``point``: weights, then the bias."""
    n = len(x)
    weight, bias = point[:, :-1].to(x), point[:, -1:].to(x)
    value = torch.zeros(len(point), dtype=torch.float64, device=x.device)
    gradient = torch.zeros_like(point)
    rows_at_once = max(256, TILE_NUMBERS[x.device.type] // len(point))
    for start in range(0, n, rows_at_once):
        rows, sign = x[start : start + rows_at_once], signs[problem, start : start + rows_at_once]
        margin = sign * (weight @ rows.T + bias)
        looked_at = sign.abs()
        value += (looked_at * torch.nn.functional.softplus(-margin)).sum(dim=1, dtype=torch.float64)
        residual = -sign * torch.sigmoid(-margin)
        gradient[:, :-1] += residual @ rows
        gradient[:, -1] += residual.sum(dim=1)
    value = value / n + strength / 2 * point[:, :-1].square().sum(dim=1)
    gradient /= n
    gradient[:, :-1] += strength * point[:, :-1]
    return value, gradient


def _binary_precondition(
    x: Float[Tensor, "m d"], spectrum: _Spectrum, parameters: Float[Tensor, "c d_plus_1"], strength: float
) -> Precondition:
    """The inverse of E[p (1 - p)] E[x x^T] + strength for each class, p being its probabilities at ``parameters``."""
    p = torch.sigmoid(x.double() @ parameters[:, :-1].T + parameters[:, -1])
    uncertain = (p * (1 - p)).mean(dim=0).clamp(min=1e-12)[:, None]
    along, features, rest = spectrum
    curvature = uncertain * along.double().clamp(min=0) + strength

    def apply(gradient: Tensor, problem: Tensor) -> Tensor:
        inside = gradient[:, :-1].to(x) @ features
        weight = ((inside.double() / curvature[problem]).to(x) @ features.T).double()
        if rest is not None:
            outside = gradient[:, :-1] - (inside @ features.T).double()
            weight = weight + outside / (uncertain[problem] * rest.double() + strength)
        return torch.cat([weight, gradient[:, -1:] / uncertain[problem]], dim=1)

    return apply


def _product(weight: Float[Tensor, "s c d"], rows: Float[Tensor, "s t d"]) -> Float[Tensor, "s c t"]:
    if weight.shape[1] in ROWS_FIRST and not weight.is_cuda:
        return (rows @ weight.mT).mT.contiguous()
    return weight @ rows.mT


def _penalty(strength: float, num_classes: int, steps: Float[Tensor, "a m p"]) -> Float[Tensor, "a m p"]:
    """The Hessian of a penalty times some steps: weights are multiplied by ``strength``, biases by zero."""
    penalized = strength * steps
    penalized.unflatten(2, (num_classes, -1))[..., -1] = 0
    return penalized


def _kronecker(
    x: Float[Tensor, "m d"],
    spectrum: _Spectrum,
    parameters: Float[Tensor, "c d_plus_1"],
    strength: float,
) -> Precondition:
    """The inverse of E[diag(p) - p p^T] (x) E[x x^T] + strength: the Hessian if p and x were independent.

    p are the class probabilities at ``parameters``, and ``spectrum`` is that of E[x x^T]. What matters most is how far
    the probabilities are from certain: without it, a weak penalty on separable features takes five times the steps.
    """
    p = torch.softmax(x.double() @ parameters[:, :-1].T + parameters[:, -1], dim=1)
    between_classes, classes = torch.linalg.eigh(p.mean(dim=0).diag() - p.T @ p / len(p))
    # Zero along "the same to every class", which changes no probability.
    between_classes = between_classes.clamp(min=between_classes[1].clamp(min=1e-12))[:, None]
    along, features, rest = spectrum
    curvature = between_classes * along.double().clamp(min=0) + strength

    def apply(gradient: Tensor, problem: Tensor) -> Tensor:
        rotated = classes.T @ gradient.unflatten(1, (len(parameters), -1))
        inside = rotated[:, :, :-1].to(x) @ features
        weight = ((inside.double() / curvature).to(x) @ features.T).double()
        if rest is not None:
            outside = rotated[:, :, :-1] - (inside @ features.T).double()
            weight = weight + outside / (between_classes * rest.double() + strength)
        return (classes @ torch.cat([weight, rotated[:, :, -1:] / between_classes], dim=2)).flatten(start_dim=1)

    return apply
