"""L-BFGS for many smooth convex problems at once, each with its own step, history and end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Past steps that are remembered: many, since they cost little beside the evaluations that they save, but fewer where
# they would take more than this many numbers.
LONGEST_HISTORY = 100
HISTORY_NUMBERS = 1 << 23
# Armijo's constant, and the smallest share of a step that one backtrack leaves.
SUFFICIENT_DECREASE = 1e-4
SHORTEST_BACKTRACK = 0.1

# Values and gradients at the points of some of the problems, those whose numbers are given.
Evaluate = Callable[[Float[Tensor, "a p"], Int64[Tensor, " a"]], tuple[Float[Tensor, " a"], Float[Tensor, "a p"]]]
# A rough inverse of the Hessians of some of the problems, applied to one vector of each.
Precondition = Callable[[Float[Tensor, "a p"], Int64[Tensor, " a"]], Float[Tensor, "a p"]]


@dataclass(frozen=True)
class Minimum:
    """Where each of ``s`` problems ended; ``converged`` is false where it ran out of evaluations before the minimum."""

    point: Float[Tensor, "s p"]
    value: Float[Tensor, " s"]
    converged: Bool[Tensor, " s"]


class History:
    """The last steps of each problem, oldest first, with the change of the gradient along each.

    A problem that did not take a step has zeros in its place. ``products`` holds the inner product of each step with
    each change that is not older. Since a direction costs four passes over the history, it is kept in ``dtype``, in
    which gradients are computed, and not in the float64 in which they are summed.
    """

    def __init__(self, problems: int, numbers: int, *, dtype: torch.dtype, device: torch.device):
        length = max(10, min(LONGEST_HISTORY, HISTORY_NUMBERS // (problems * numbers)))
        self.length = length
        self.count = 0
        # Room for some more, so that the oldest are dropped many at a time.
        room = length + length // 4
        self._steps = torch.zeros(problems, room, numbers, dtype=dtype, device=device)
        self._changes = torch.zeros_like(self._steps)
        self._products = torch.zeros(problems, room, room, dtype=torch.float64, device=device)

    @property
    def steps(self) -> Float[Tensor, "a m p"]:
        """The past steps of each problem."""
        return self._steps[:, : self.count]

    @property
    def changes(self) -> Float[Tensor, "a m p"]:
        """The changes of the gradient along the past steps of each problem."""
        return self._changes[:, : self.count]

    @property
    def products(self) -> Float[Tensor, "a m m"]:
        """The inner products of the steps and changes of each problem, on and above the diagonal."""
        return self._products[:, : self.count, : self.count]

    def append(self, step: Float[Tensor, "a p"], change: Float[Tensor, "a p"], taken: Bool[Tensor, " a"]) -> None:
        """Remember a step and the ``change`` of the gradient along it, for the problems that have ``taken`` it."""
        if self.count == self._steps.shape[1]:
            self._drop_oldest()
        useful = (taken & ((step * change).sum(dim=1) > 0))[:, None]
        new = self.count
        self.count += 1
        self._steps[:, new] = step.where(useful, 0.0)
        self._changes[:, new] = change.where(useful, 0.0)
        self.products[:, :, new] = _times(self.steps, self._changes[:, new])

    def bend(self, change_of_hessian: Callable[[Float[Tensor, "a m p"]], Float[Tensor, "a m p"]]) -> None:
        """Add to each change what a known change of the Hessian adds along the same step."""
        self._changes[:, : self.count] += change_of_hessian(self.steps)
        self._products[:, : self.count, : self.count] = self.steps @ self.changes.mT

    def keep(self, rows: Bool[Tensor, " a"]) -> None:
        """Keep some of the problems, and forget the others."""
        self._steps, self._changes, self._products = self._steps[rows], self._changes[rows], self._products[rows]

    def inverse_hessian(
        self, vector: Float[Tensor, "a p"], precondition: Callable[[Float[Tensor, "a p"]], Float[Tensor, "a p"]]
    ) -> Float[Tensor, "a p"]:
        """The inverse Hessian that follows from the past steps, applied to one vector of each problem.

        These are the two loops of Nocedal (1980) around ``precondition``, which is scaled to the curvature along the
        last step. Each loop is written as one triangular system, since few large operations suit a GPU.
        """
        if self.count == 0:
            return precondition(vector)
        own = self.products.diagonal(dim1=1, dim2=2)
        later = self.products.triu() + torch.diag_embed((own == 0).double())
        first = torch.linalg.solve_triangular(later, _times(self.steps, vector)[:, :, None], upper=True)[:, :, 0]
        vector = vector - _times(self.changes.mT, first)
        vector = self._scale(own, precondition) * precondition(vector)
        rest = own * first - _times(self.changes, vector)
        second = torch.linalg.solve_triangular(later.mT, rest[:, :, None], upper=False)[:, :, 0]
        return vector + _times(self.steps.mT, second)

    def _scale(self, own: Tensor, precondition: Callable[[Tensor], Tensor]) -> Float[Tensor, "a 1"]:
        """The factor by which ``precondition`` is off along the last step that each problem took."""
        order = torch.arange(1, self.count + 1, device=own.device)
        last = torch.where(own > 0, order, 0).argmax(dim=1)
        problem = torch.arange(len(own), device=own.device)
        change = self.changes[problem, last].double()
        expected = (change * precondition(change)).sum(dim=1)
        return torch.where(expected > 0, own[problem, last] / expected, 1.0)[:, None]

    def _drop_oldest(self) -> None:
        kept = slice(self.count - self.length + 1, self.count)
        self.count = self.length - 1
        self.steps.copy_(self._steps[:, kept].clone())
        self.changes.copy_(self._changes[:, kept].clone())
        self.products.copy_(self._products[:, kept, kept].clone())


def _times(matrix: Float[Tensor, "a i j"], vector: Float[Tensor, "a j"]) -> Float[Tensor, "a i"]:
    """``matrix @ vector``, computed in the type of the matrix and given in float64."""
    return (matrix @ vector.to(matrix)[:, :, None])[:, :, 0].double()


@dataclass
class _Walk:
    """The problems that are still being solved: their numbers, where they are and where they go next."""

    problem: Int64[Tensor, " a"]
    point: Float[Tensor, "a p"]
    value: Float[Tensor, " a"]
    gradient: Float[Tensor, "a p"]
    direction: Float[Tensor, "a p"]
    length: Float[Tensor, " a"]

    def keep(self, rows: Bool[Tensor, " a"]) -> None:
        for name in ("problem", "point", "value", "gradient", "direction", "length"):
            setattr(self, name, getattr(self, name)[rows])


def minimize(
    evaluate: Evaluate,
    start: Float[Tensor, "s p"],
    *,
    precondition: Precondition,
    tolerance: float,
    noise: float,
    max_evaluations: int,
    history: History,
) -> Minimum:
    """Minimize ``s`` independent convex functions of ``p`` numbers together, by L-BFGS (Liu and Nocedal, 1989).

    A problem ends, and is no longer evaluated, when the decrease that its next step promises, half of
    -gradient . direction, falls below ``tolerance`` times its value, or after ``max_evaluations``. Values have a
    rounding error of ``noise`` times their size. A step that does not decrease the value enough is shortened while the
    other problems go on. ``history`` is new, or holds steps of earlier problems with nearly the same Hessians; new
    steps are appended to it.
    """
    problem = torch.arange(len(start), device=start.device)
    value, gradient = evaluate(start, problem)
    direction = -history.inverse_hessian(gradient, lambda vector: precondition(vector, problem))
    walk = _Walk(problem, start, value, gradient, direction, torch.ones_like(value))
    end = Minimum(start.clone(), value.clone(), torch.zeros_like(problem, dtype=torch.bool))
    for evaluations in range(1, max_evaluations + 1):
        slope = (walk.gradient * walk.direction).sum(dim=1)
        converged = slope.abs() / 2 <= tolerance * walk.value.abs()
        done = converged if evaluations < max_evaluations else torch.ones_like(converged)
        if done.any():
            finished = walk.problem[done]
            end.point[finished], end.value[finished] = walk.point[done], walk.value[done]
            end.converged[finished] = converged[done]
            if done.all():
                break
            walk.keep(~done)
            history.keep(~done)
            slope = slope[~done]
        _step(walk, slope, evaluate, precondition, noise, history)
    return end


def _step(
    walk: _Walk, slope: Tensor, evaluate: Evaluate, precondition: Precondition, noise: float, history: History
) -> None:
    """Try a step in every problem; where it is good enough, take it and find a new direction, elsewhere shorten it.

    It is good enough if it decreases the value sufficiently (Armijo) or, where rounding hides that, the slope: the
    approximate Wolfe condition of Hager and Zhang (SIAM J. Optim., 2005, equation 4.1).
    """
    trial = walk.point + walk.length[:, None] * walk.direction
    value, gradient = evaluate(trial, walk.problem)
    slope_there = (gradient * walk.direction).sum(dim=1)
    decrease = walk.value - value
    enough = decrease >= -SUFFICIENT_DECREASE * slope * walk.length
    flat = (decrease >= -noise * walk.value.abs()) & (slope_there <= (2 * SUFFICIENT_DECREASE - 1) * slope)
    taken = enough | flat
    history.append(trial - walk.point, gradient - walk.gradient, taken)
    # Where the line through both slopes meets zero; one that is NaN or infinite shortens most.
    share = (slope / (slope - slope_there)).nan_to_num(nan=0.0)
    walk.length = torch.where(taken, 1.0, walk.length * share.clamp(SHORTEST_BACKTRACK, 0.5))
    walk.point = torch.where(taken[:, None], trial, walk.point)
    walk.value = torch.where(taken, value, walk.value)
    walk.gradient = torch.where(taken[:, None], gradient, walk.gradient)
    turned = -history.inverse_hessian(walk.gradient, lambda vector: precondition(vector, walk.problem))
    walk.direction = torch.where(taken[:, None], turned, walk.direction)
