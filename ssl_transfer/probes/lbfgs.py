"""L-BFGS for many smooth convex problems at once, each with its own step, history and end."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

HISTORY = 10
# Armijo's constant, and the smallest share of the step that one backtrack leaves.
SUFFICIENT_DECREASE = 1e-4
SHORTEST_BACKTRACK = 0.1


@dataclass(frozen=True)
class Minimum:
    """Where each of ``s`` problems ended; ``converged`` tells whether it got there or ran out of steps."""

    point: Float[Tensor, "s p"]
    value: Float[Tensor, " s"]
    converged: Bool[Tensor, " s"]
    evaluations: int


def minimize(
    evaluate: Callable[[Float[Tensor, "s p"]], tuple[Float[Tensor, " s"], Float[Tensor, "s p"]]],
    start: Float[Tensor, "s p"],
    *,
    precondition: Callable[[Float[Tensor, "s p"]], Float[Tensor, "s p"]],
    tolerance: float,
    max_evaluations: int,
) -> Minimum:
    """Minimise ``s`` independent convex functions of ``p`` numbers together (Liu and Nocedal, 1989).

    ``evaluate`` returns values and gradients of all problems; ``precondition`` applies a rough inverse of
    each Hessian. A problem ends when the decrease that a further step promises, half of -gradient .
    direction, falls below ``tolerance`` times its value. A step that does not decrease the value enough is
    shortened; the problems that took theirs go on meanwhile.
    """
    point = start
    value, gradient = evaluate(point)
    history: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
    direction = -precondition(gradient)
    length = torch.ones_like(value)
    # Rounding in the value: below it a comparison means nothing.
    noise = 16 * torch.finfo(gradient.dtype).eps
    evaluations = 1
    while True:
        slope = (gradient * direction).sum(dim=1)
        converged = -slope / 2 <= tolerance * value.abs()
        if converged.all() or evaluations >= max_evaluations:
            return Minimum(point, value, converged, evaluations)
        trial = point + length[:, None] * direction
        trial_value, trial_gradient = evaluate(trial)
        evaluations += 1
        decrease = value - trial_value
        enough = decrease >= -SUFFICIENT_DECREASE * length * slope - noise * value.abs()
        taken = enough & trial_value.isfinite() & ~converged
        history.append(_pair(trial - point, trial_gradient - gradient, taken))
        # The minimum of the parabola through the two values and the slope.
        parabola = -slope * length / (2 * (decrease - slope * length).abs()).nan_to_num(posinf=torch.inf)
        shorter = length * parabola.clamp(SHORTEST_BACKTRACK, 0.5)
        length = torch.where(taken, 1.0, shorter)
        point = torch.where(taken[:, None], trial, point)
        value = torch.where(taken, trial_value, value)
        gradient = torch.where(taken[:, None], trial_gradient, gradient)
        new_direction = -_inverse_hessian(gradient, history, precondition)
        direction = torch.where(taken[:, None], new_direction, direction)


def _pair(step: Tensor, change: Tensor, taken: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A step, the change of the gradient along it and 1 / their product; 0 for problems that took no step."""
    curvature = (step * change).sum(dim=1)
    useful = taken & (curvature > 0)
    return step, change, torch.where(useful, 1 / curvature, 0.0)


def _inverse_hessian(
    gradient: Tensor, history: deque[tuple[Tensor, Tensor, Tensor]], precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """The two-loop recursion around ``precondition``, scaled to the curvature of the last useful step."""
    vector = gradient
    weights = []
    for step, change, inverse_curvature in reversed(history):
        weight = inverse_curvature * (step * vector).sum(dim=1)
        vector = vector - torch.where(inverse_curvature > 0, weight, 0.0)[:, None] * change
        weights.append(weight)
    vector = _scale(history, precondition)[:, None] * precondition(vector)
    for (step, change, inverse_curvature), weight in zip(history, reversed(weights), strict=True):
        correction = weight - inverse_curvature * (change * vector).sum(dim=1)
        vector = vector + torch.where(inverse_curvature > 0, correction, 0.0)[:, None] * step
    return vector


def _scale(history: deque[tuple[Tensor, Tensor, Tensor]], precondition: Callable[[Tensor], Tensor]) -> Tensor:
    scale = torch.ones_like(history[0][2])
    for _, change, inverse_curvature in history:
        useful = inverse_curvature > 0
        expected = (change * precondition(change)).sum(dim=1)
        scale = torch.where(useful, 1 / (inverse_curvature * expected), scale)
    return scale
