"""L-BFGS for many smooth convex problems at once, each with its own step, history and end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Past steps that shape the next one. Many, as they cost little beside an evaluation and save some; fewer where they
# would take more than this many numbers.
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
    """Where each of ``s`` problems ended; ``converged`` tells whether it got there or ran out of steps."""

    point: Float[Tensor, "s p"]
    value: Float[Tensor, " s"]
    converged: Bool[Tensor, " s"]
    evaluations: Int64[Tensor, " s"]


class History:
    """The last steps of each problem, oldest first, with the change of the gradient along each.

    A problem that did not take a step has zeros there. ``products`` holds each step . each change that is not older
    than it. Turning costs reading the history four times, so it is kept in ``dtype``, the one that the gradients
    are computed in, and not in the float64 that they are summed in.
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
        """Of every problem, the past steps."""
        return self._steps[:, : self.count]

    @property
    def changes(self) -> Float[Tensor, "a m p"]:
        """Of every problem, the changes of the gradient along its past steps."""
        return self._changes[:, : self.count]

    @property
    def products(self) -> Float[Tensor, "a m m"]:
        """Of every problem, each step . each change, on and above the diagonal."""
        return self._products[:, : self.count, : self.count]

    def append(self, step: Float[Tensor, "a p"], change: Float[Tensor, "a p"], taken: Bool[Tensor, " a"]) -> None:
        """Remember one more step of the problems that have ``taken`` it."""
        if self.count == self._steps.shape[1]:
            self._drop_oldest()
        useful = (taken & ((step * change).sum(dim=1) > 0))[:, None]
        new = self.count
        self.count += 1
        self._steps[:, new] = step.where(useful, 0.0)
        self._changes[:, new] = change.where(useful, 0.0)
        self.products[:, :, new] = _times(self.steps, self._changes[:, new])

    def bend(self, change_of_hessian: Callable[[Float[Tensor, "a m p"]], Float[Tensor, "a m p"]]) -> None:
        """Turn the changes into those that the same steps have under a Hessian that differs in a known way."""
        self._changes[:, : self.count] += change_of_hessian(self.steps)
        self._products[:, : self.count, : self.count] = self.steps @ self.changes.mT

    def keep(self, rows: Bool[Tensor, " a"]) -> None:
        """Forget the problems that are solved."""
        self._steps, self._changes, self._products = self._steps[rows], self._changes[rows], self._products[rows]

    def inverse_hessian(
        self, vector: Float[Tensor, "a p"], precondition: Callable[[Float[Tensor, "a p"]], Float[Tensor, "a p"]]
    ) -> Float[Tensor, "a p"]:
        """The inverse Hessian that the past steps tell of, applied to a vector of each problem.

        The two loops of Nocedal (1980) around ``precondition``, each written as one triangular system, for a GPU
        likes few large operations. ``precondition`` is scaled to the curvature along the last step.
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
        """How far ``precondition`` is off along the last step that each problem took."""
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
    """``matrix @ vector`` at the precision of the matrix, given in float64."""
    return (matrix @ vector.to(matrix)[:, :, None])[:, :, 0].double()


@dataclass
class _Walk:
    """The problems still being solved: which they are, where they stand and where they go next."""

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
    """Minimize ``s`` independent convex functions of ``p`` numbers together (Liu and Nocedal, 1989).

    A problem ends, and is no longer evaluated, when the decrease that its next step promises, half of
    -gradient . direction, falls below ``tolerance`` times its value. Values have a rounding error of ``noise`` times
    their size. A step that does not decrease the value enough is shortened while the others go on.
    ``history`` is new, or holds steps of earlier problems with nearly the same Hessians; it is filled further.
    """
    problem = torch.arange(len(start), device=start.device)
    value, gradient = evaluate(start, problem)
    direction = -history.inverse_hessian(gradient, lambda vector: precondition(vector, problem))
    walk = _Walk(problem, start, value, gradient, direction, torch.ones_like(value))
    end = Minimum(start.clone(), value.clone(), torch.zeros_like(problem, dtype=torch.bool), torch.zeros_like(problem))
    for evaluations in range(1, max_evaluations + 1):
        slope = (walk.gradient * walk.direction).sum(dim=1)
        converged = slope.abs() / 2 <= tolerance * walk.value.abs()
        done = converged if evaluations < max_evaluations else torch.ones_like(converged)
        if done.any():
            finished = walk.problem[done]
            end.point[finished], end.value[finished] = walk.point[done], walk.value[done]
            end.converged[finished], end.evaluations[finished] = converged[done], evaluations
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
    """Try a step in every problem: where it is good enough take it and turn, elsewhere shorten it.

    Good enough is a sufficient decrease of the value (Armijo) or, where that drowns in rounding, of the slope: the
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
