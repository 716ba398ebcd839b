"""Learning rates and momenta as pure functions of the step.

Nothing here has state: a run resumed at any step has the numbers it would have had. Step 0 is the first one.
"""

import math
from collections.abc import Sequence


def constant(step: int, *, base: float) -> float:
    """Return ``base`` at every step."""
    return base


def cosine(step: int, *, total_steps: int, base: float, final: float = 0.0) -> float:
    """Half a cosine from ``base`` at step 0 to ``final`` at ``total_steps`` (Loshchilov, Hutter, ICLR 2017).

    With ``final=1`` this is also the momentum of the averaged teacher in BYOL and MoCo v3.
    """
    progress = min(step / total_steps, 1.0)
    return final + (base - final) * (1 + math.cos(math.pi * progress)) / 2


def warmup_cosine(step: int, *, total_steps: int, warmup_steps: int, base: float, final: float = 0.0) -> float:
    """Linear from ``base / warmup_steps`` to ``base`` over the warm-up, then half a cosine to ``final``.

    The first step already moves: its rate is base / warmup_steps, not zero.

    Raises:
        ValueError: the warm-up is longer than the run.
    """
    if warmup_steps > total_steps:
        raise ValueError(
            f"warmup_steps ({warmup_steps}) must not exceed total_steps ({total_steps}): shorten the warm-up"
        )
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    return cosine(step - warmup_steps, total_steps=max(total_steps - warmup_steps, 1), base=base, final=final)


def multi_step(step: int, *, base: float, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """Multiply ``base`` by ``gamma`` once for each milestone (a step) that has been reached."""
    return base * gamma ** sum(step >= milestone for milestone in milestones)
