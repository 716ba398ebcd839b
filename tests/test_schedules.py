import math
import warnings

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

from ssl_transfer import schedules

BASE = 0.3


def learning_rates(make_scheduler, steps: int) -> list[float]:
    """What torch's scheduler sets at each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR uses a deprecated argument of its own
        scheduler: LRScheduler = make_scheduler(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


def test_constant():
    assert {schedules.constant(step, base=BASE) for step in range(5)} == {BASE}


@pytest.mark.parametrize("final", [0.0, 0.01])
def test_cosine_equals_torchs_at_every_step(final):
    expected = learning_rates(lambda optimizer: CosineAnnealingLR(optimizer, 50, eta_min=final), 51)
    rates = [schedules.cosine(step, total_steps=50, base=BASE, final=final) for step in range(51)]
    assert rates == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("warmup_steps", [2, 10, 49])
def test_warmup_cosine_equals_torchs_linear_then_cosine_at_every_step(warmup_steps):
    def scheduler(optimizer):
        linear = LinearLR(optimizer, start_factor=1 / warmup_steps, total_iters=warmup_steps - 1)
        cosine = CosineAnnealingLR(optimizer, 60 - warmup_steps, eta_min=0.02)
        return SequentialLR(optimizer, [linear, cosine], [warmup_steps])

    expected = learning_rates(scheduler, 61)
    rates = [
        schedules.warmup_cosine(step, total_steps=60, warmup_steps=warmup_steps, base=BASE, final=0.02)
        for step in range(61)
    ]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_warmup_cosine_without_warmup_is_the_cosine():
    for step in range(20):
        assert schedules.warmup_cosine(step, total_steps=20, warmup_steps=0, base=BASE) == schedules.cosine(
            step, total_steps=20, base=BASE
        )


def test_warmup_of_the_whole_run_is_allowed_and_longer_is_not():
    assert schedules.warmup_cosine(9, total_steps=10, warmup_steps=10, base=BASE) == BASE
    with pytest.raises(ValueError, match=r"warmup_steps \(11\) must not exceed total_steps \(10\)"):
        schedules.warmup_cosine(0, total_steps=10, warmup_steps=11, base=BASE)


def test_after_the_end_the_final_value_stays():
    assert schedules.warmup_cosine(99, total_steps=10, warmup_steps=2, base=BASE, final=0.1) == pytest.approx(0.1)


def test_multi_step_equals_torchs_at_every_step():
    expected = learning_rates(lambda optimizer: MultiStepLR(optimizer, [10, 15, 15, 30], gamma=0.2), 40)
    rates = [schedules.multi_step(step, base=BASE, milestones=[10, 15, 15, 30], gamma=0.2) for step in range(40)]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_momentum_of_byol_rises_from_base_to_one():
    """Grill et al., NeurIPS 2020, section 3.3: 1 - (1 - base) (cos(pi k / K) + 1) / 2."""
    for step in range(101):
        byol = 1 - (1 - 0.996) * (math.cos(math.pi * step / 100) + 1) / 2
        assert schedules.cosine(step, total_steps=100, base=0.996, final=1.0) == pytest.approx(byol, rel=1e-14)
