import pytest
import torch

from ssl_transfer.probes.lbfgs import History, minimize

P = 12


def dense_bfgs(steps, changes, start):
    """The inverse Hessian by Broyden, Fletcher, Goldfarb and Shanno's update, one step after another."""
    inverse = start
    for step, change in zip(steps, changes, strict=True):
        left = torch.eye(P, dtype=torch.float64) - torch.outer(step, change) / (step @ change)
        inverse = left @ inverse @ left.T + torch.outer(step, step) / (step @ change)
    return inverse


def quadratic(seed: int):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(P, P, dtype=torch.float64, generator=generator)
    steps = torch.randn(5, P, dtype=torch.float64, generator=generator)
    return root @ root.T + torch.eye(P), steps, torch.randn(P, dtype=torch.float64, generator=generator)


def history_of(steps, changes, dtype):
    history = History(1, P, dtype=dtype, device=torch.device("cpu"))
    for step, change in zip(steps, changes, strict=True):
        history.append(step[None], change[None], torch.tensor([True]))
    return history


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_the_history_turns_a_gradient_as_the_dense_update_does(dtype, rtol):
    hessian, steps, vector = quadratic(0)
    changes = steps @ hessian
    turned = history_of(steps, changes, dtype).inverse_hessian(vector[None], lambda v: 3 * v)[0]
    scale = (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
    expected = dense_bfgs(steps, changes, scale * torch.eye(P, dtype=torch.float64)) @ vector
    torch.testing.assert_close(turned, expected, rtol=rtol, atol=rtol)


def test_a_bent_history_is_that_of_the_changed_hessian():
    hessian, steps, vector = quadratic(1)
    bent = history_of(steps, steps @ hessian, torch.float64)
    bent.bend(lambda s: 0.5 * s)
    fresh = history_of(steps, steps @ hessian + 0.5 * steps, torch.float64)
    turned = [h.inverse_hessian(vector[None], lambda v: v) for h in (bent, fresh)]
    torch.testing.assert_close(*turned)
    bent.append(steps[:1] + 1, (steps[:1] + 1) @ hessian, torch.tensor([True]))
    fresh.append(steps[:1] + 1, (steps[:1] + 1) @ hessian, torch.tensor([True]))
    torch.testing.assert_close(*(h.inverse_hessian(vector[None], lambda v: v) for h in (bent, fresh)))


def test_a_full_history_forgets_its_oldest_steps_alone(monkeypatch):
    monkeypatch.setattr("ssl_transfer.probes.lbfgs.LONGEST_HISTORY", 10)
    hessian, _, vector = quadratic(2)
    steps = torch.randn(13, P, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    full = history_of(steps, steps @ hessian, torch.float64)
    assert full.count == 10
    recent = history_of(steps[-10:], steps[-10:] @ hessian, torch.float64)
    torch.testing.assert_close(*(h.inverse_hessian(vector[None], lambda v: v) for h in (full, recent)))


def test_values_of_three_digits_end_a_search_no_earlier_than_exact_ones():
    """In a steep, narrow valley of which the gradients are exact."""
    scales = torch.logspace(0, 5, P, dtype=torch.float64)
    start = torch.randn(20, P, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def height(point):
        return 1 + (torch.log(torch.cosh(point)) * scales).sum(dim=1) / scales.sum()

    def end(digits):
        found = minimize(
            lambda point, problem: (height(point).round(decimals=digits), torch.tanh(point) * scales / scales.sum()),
            start,
            precondition=lambda gradient, problem: gradient,
            tolerance=1e-9,
            noise=10.0**-digits,
            max_evaluations=500,
            history=History(20, P, dtype=torch.float64, device=torch.device("cpu")),
        )
        assert found.converged.all()
        return height(found.point) - 1

    assert end(3).max() < 2 * end(15).max()
