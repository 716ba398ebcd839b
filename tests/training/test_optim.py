import pytest
import torch
from torch import nn

from ssl_transfer.training.optim import create_optimizer


class WithToken(nn.Module):
    """A layer with a parameter that it exempts from weight decay, as timm's transformers do."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, 4))

    def no_weight_decay(self) -> set[str]:
        return {"token"}


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(8, 6, generator=generator, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in network.parameters()]


def split(network: nn.Module, weight_decay: float) -> list[dict]:
    """Weights of more than one dimension decay, the others do not: written down by hand."""
    decayed = [network[0].weight, network[3].weight]
    exempt = [network[0].bias, network[1].weight, network[1].bias, network[3].bias]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_sgd_equals_torchs_with_plain_momentum(weight_decay):
    mine, theirs = make_network(), make_network()
    optimizer = create_optimizer(mine, name="sgd", lr=0.1, weight_decay=weight_decay, momentum=0.8)
    reference = torch.optim.SGD(split(theirs, weight_decay), lr=0.1, momentum=0.8, foreach=False)
    torch.testing.assert_close(train(mine, optimizer), train(theirs, reference))


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_adamw_equals_torchs(weight_decay):
    mine, theirs = make_network(), make_network()
    optimizer = create_optimizer(mine, name="adamw", lr=0.01, weight_decay=weight_decay)
    reference = torch.optim.AdamW(split(theirs, weight_decay), lr=0.01, foreach=False)
    torch.testing.assert_close(train(mine, optimizer), train(theirs, reference))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_lars_equals_the_formula(weight_decay, clip):
    """You et al., 2017, algorithm 1: local rate 0.001 |w| / (|g| + decay |w|), on decayed weights only."""
    mine, theirs = make_network(), make_network()
    trust = {"trust_coefficient": 0.5, "trust_clip": True} if clip else {}
    optimizer = create_optimizer(mine, name="lars", lr=2.0, weight_decay=weight_decay, **trust)  # momentum 0.9
    velocity = [torch.zeros_like(parameter) for parameter in theirs.parameters()]
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        theirs.zero_grad()
        theirs(torch.randn(8, 6, generator=generator, dtype=torch.float64)).square().mean().backward()
        for index, weight in enumerate(theirs.parameters()):
            gradient = weight.grad
            if weight.ndim > 1:
                local = weight.norm() / (gradient.norm() + weight_decay * weight.norm() + 1e-8)
                local = (0.5 * local / 2.0).clamp(max=1) if clip else 0.001 * local  # 2.0: the learning rate
                gradient = local * (gradient + weight_decay * weight)
            velocity[index] = 0.9 * velocity[index] + gradient
            weight.data -= 2.0 * velocity[index].detach()
    torch.testing.assert_close(train(mine, optimizer), [weight.detach() for weight in theirs.parameters()])


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_biases_norms_and_exempt_names_do_not_decay(name):
    network = nn.Sequential(make_network(), nn.ModuleDict({"inner": WithToken()}))
    optimizer = create_optimizer(network, name=name, lr=0.1, weight_decay=0.05)
    names = {parameter: name for name, parameter in network.named_parameters()}
    decayed = {
        names[parameter] for group in optimizer.param_groups if group["weight_decay"] for parameter in group["params"]
    }
    assert decayed == {"0.0.weight", "0.3.weight"}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


def test_a_network_that_is_optimized_by_itself_names_what_it_exempts():
    (group,) = create_optimizer(WithToken(), name="sgd", lr=0.1, weight_decay=0.05).param_groups
    assert group["weight_decay"] == 0.0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_is_one_kernel_and_not_one_for_each_parameter(name):
    assert create_optimizer(make_network(), name=name, lr=0.1, weight_decay=0.0).defaults["fused"] is True


def test_frozen_parameters_are_left_out():
    network = make_network()
    network[0].requires_grad_(False)
    optimizer = create_optimizer(network, name="sgd", lr=0.1, weight_decay=0.05)
    taken = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    assert taken == {*network[1].parameters(), *network[3].parameters()}


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_state_round_trip_continues_exactly(name):
    straight, resumed = make_network(), make_network()
    expected = train(straight, create_optimizer(straight, name=name, lr=0.1, weight_decay=0.05), steps=5)
    optimizer = create_optimizer(resumed, name=name, lr=0.1, weight_decay=0.05)
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        if step == 2:
            state = optimizer.state_dict()
            optimizer = create_optimizer(resumed, name=name, lr=0.1, weight_decay=0.05)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        resumed(torch.randn(8, 6, generator=generator, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    for mine, theirs in zip(resumed.parameters(), expected, strict=True):
        assert torch.equal(mine, theirs)


def test_unknown_name_is_told_in_one_line():
    with pytest.raises(ValueError, match="no optimizer named 'adamm': choose sgd, adamw, lars"):
        create_optimizer(make_network(), name="adamm", lr=0.1, weight_decay=0.0)


def test_a_named_part_learns_at_its_own_rate_and_keeps_the_rules_of_weight_decay():
    network = make_network()
    optimizer = create_optimizer(network, name="adamw", lr=0.01, weight_decay=0.1, lr_scales={"3": 100.0})
    groups = optimizer.param_groups
    rate = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert rate[id(network[0].weight)] == (1.0, 0.1) and rate[id(network[0].bias)] == (1.0, 0.0)
    assert rate[id(network[3].weight)] == (100.0, 0.1) and rate[id(network[3].bias)] == (100.0, 0.0)
    assert len(rate) == len(list(network.parameters()))
