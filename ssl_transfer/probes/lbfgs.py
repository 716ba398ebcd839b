"""L-BFGS for many smooth convex problems at once, each with its own step, history and end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Past steps that shape the next one. Many, as they cost little beside an evaluation and save some.
HISTORY = 100
# Armijo's constant, and the smallest share of a step that one backtrack leaves.
SUFFICIENT_DECREASE = 1e-4
SHORTEST_BACKTRACK = 0.1

# Values and gradients at the points of some of the problems, those whose numbers are given.
Evaluate = Callable[[Float[Tensor, "a p"], Int64[Tensor, " a"]], tuple[Float[Tensor, " a"], Float[Tensor, "a p"]]]
# A rough inverse of the Hessians of some of the problems, applied to one vector of each.
Precondition = Callable[[Float[Tensor, "a p"], Int64[Tensor, " a"]], Float[Tensor, "a p"]]

# One evaluation in the past: the step, the change of the gradient along it, and 1 / their product (0: step
# not taken).
Pair = tuple[Float[Tensor, "a p"], Float[Tensor, "a p"], Float[Tensor, " a"]]


@dataclass(frozen=True)
class Minimum:
    """Where each of ``s`` problems ended; ``converged`` tells whether it got there or ran out of steps."""

    point: Float[Tensor, "s p"]
    value: Float[Tensor, " s"]
    converged: Bool[Tensor, " s"]
    evaluations: Int64[Tensor, " s"]


@dataclass
class _Walk:
    """The problems still being solved: which they are, where they stand, and the steps that led there."""

    problem: Int64[Tensor, " a"]
    point: Float[Tensor, "a p"]
    value: Float[Tensor, " a"]
    gradient: Float[Tensor, "a p"]
    direction: Float[Tensor, "a p"]
    length: Float[Tensor, " a"]
    history: list[Pair]

    def keep(self, rows: Bool[Tensor, " a"]) -> "_Walk":
        return _Walk(
            problem=self.problem[rows],
            point=self.point[rows],
            value=self.value[rows],
            gradient=self.gradient[rows],
            direction=self.direction[rows],
            length=self.length[rows],
            history=[(step[rows], change[rows], inverse[rows]) for step, change, inverse in self.history],
        )


def minimize(
    evaluate: Evaluate,
    start: Float[Tensor, "s p"],
    *,
    precondition: Precondition,
    tolerance: float,
    noise: float,
    max_evaluations: int,
    history: list[Pair],
) -> Minimum:
    """Minimise ``s`` independent convex functions of ``p`` numbers together (Liu and Nocedal, 1989).

    A problem ends, and is no longer evaluated, when the decrease that its next step promises, half of
    -gradient . direction, falls below ``tolerance`` times its value, or drowns in the rounding error of a
    value, ``noise`` times it. A step that does not decrease the value enough is shortened while the others
    go on. ``history`` may hold the pairs of an earlier problem with nearly the same Hessian; new ones are
    appended to it.
    """
    problem = torch.arange(len(start), device=start.device)
    value, gradient = evaluate(start, problem)
    walk = _Walk(problem, start, value, gradient, -precondition(gradient, problem), torch.ones_like(value), history)
    end = Minimum(start.clone(), value.clone(), torch.zeros_like(problem, dtype=torch.bool), problem * 0)
    for evaluations in range(1, max_evaluations + 1):
        slope = (walk.gradient * walk.direction).sum(dim=1)
        promise = -slope * walk.length
        drowned = (walk.length < 1) & (promise <= noise * walk.value.abs())
        converged = (promise / 2 <= tolerance * walk.value.abs()) & (walk.length == 1) | drowned
        done = converged if evaluations < max_evaluations else torch.ones_like(converged)
        if done.any():
            finished = walk.problem[done]
            end.point[finished], end.value[finished] = walk.point[done], walk.value[done]
            end.converged[finished], end.evaluations[finished] = converged[done], evaluations
            if done.all():
                break
            walk, slope = walk.keep(~done), slope[~done]
        _step(walk, slope, evaluate, precondition, noise)
    return end


def _step(walk: _Walk, slope: Tensor, evaluate: Evaluate, precondition: Precondition, noise: float) -> None:
    """Try a step in every problem: where it is good enough take it and turn, elsewhere shorten it."""
    trial = walk.point + walk.length[:, None] * walk.direction
    value, gradient = evaluate(trial, walk.problem)
    promised = -slope * walk.length
    decrease = walk.value - value
    taken = decrease >= SUFFICIENT_DECREASE * promised - noise * walk.value.abs()
    # The minimum of the parabola through both values and the slope; a value of NaN or infinity shortens most.
    parabola = (promised / (2 * (promised - decrease))).nan_to_num(nan=0.0)
    shorter = walk.length * parabola.clamp(SHORTEST_BACKTRACK, 0.5)

    step, change = trial - walk.point, gradient - walk.gradient
    curvature = (step * change).sum(dim=1)
    inverse = torch.where(taken & (curvature > 0), 1 / curvature, 0.0)
    useful = inverse[:, None] > 0
    walk.history.append((step.where(useful, 0.0), change.where(useful, 0.0), inverse))
    del walk.history[:-HISTORY]

    walk.length = torch.where(taken, 1.0, shorter)
    walk.point = torch.where(taken[:, None], trial, walk.point)
    walk.value = torch.where(taken, value, walk.value)
    walk.gradient = torch.where(taken[:, None], gradient, walk.gradient)
    walk.direction = torch.where(taken[:, None], -_inverse_hessian(walk, precondition), walk.direction)


def _inverse_hessian(walk: _Walk, precondition: Precondition) -> Float[Tensor, "a p"]:
    """The two-loop recursion around ``precondition``, applied to the gradient."""
    vector = walk.gradient
    weights = []
    for step, change, inverse in reversed(walk.history):
        weights.append(inverse * (step * vector).sum(dim=1))
        vector = vector - weights[-1][:, None] * change
    vector = _scale(walk, precondition)[:, None] * precondition(vector, walk.problem)
    for (step, change, inverse), weight in zip(walk.history, reversed(weights), strict=True):
        vector = vector + (weight - inverse * (change * vector).sum(dim=1))[:, None] * step
    return vector


def _scale(walk: _Walk, precondition: Precondition) -> Float[Tensor, " a"]:
    """How far ``precondition`` is off along the last useful step of each problem."""
    scale = torch.ones_like(walk.value)
    undecided = torch.ones_like(walk.value, dtype=torch.bool)
    for _, change, inverse in reversed(walk.history):
        useful = undecided & (inverse > 0)
        if useful.any():
            expected = (change * precondition(change, walk.problem)).sum(dim=1)
            scale = torch.where(useful, 1 / (inverse * expected), scale)
            undecided = undecided & ~useful
        if not undecided.any():
            break
    return scale
