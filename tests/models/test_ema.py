from copy import deepcopy

import torch
from torch import nn

from ssl_transfer.models import AveragedModel


def make_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, 2))


def test_average_equals_the_formula():
    networks = [make_network(seed) for seed in range(4)]
    average = AveragedModel(networks[0])
    expected = [parameter.detach().double() for parameter in networks[0].parameters()]
    for network, momentum in zip(networks[1:], (0.9, 0.99, 0.5), strict=True):
        average.update(network, momentum=momentum)
        expected = [
            momentum * old + (1 - momentum) * new.detach().double()
            for old, new in zip(expected, network.parameters(), strict=True)
        ]
    for parameter, value in zip(average.module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.double(), value, rtol=1e-6, atol=1e-7)


def test_buffers_are_copied():
    network = make_network(0)
    average = AveragedModel(network)
    network(torch.rand(8, 3, 6, 6))  # moves the running statistics and the counter
    average.update(network, momentum=0.9)
    for (name, mine), theirs in zip(average.module.named_buffers(), network.buffers(), strict=True):
        assert torch.equal(mine, theirs), name
    assert average.module[1].num_batches_tracked == 1


def test_momentum_zero_copies_and_one_keeps():
    network, other = make_network(0), make_network(1)
    average = AveragedModel(network)
    average.update(other, momentum=1.0)
    assert all(map(torch.equal, average.module.parameters(), network.parameters()))
    average.update(other, momentum=0.0)
    assert all(map(torch.equal, average.module.parameters(), other.parameters()))


def test_model_is_not_touched_and_average_is_its_own():
    network = make_network(0)
    before = deepcopy(network.state_dict())
    average = AveragedModel(network)
    average.update(make_network(1), momentum=0.5)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.training


def test_average_stays_in_eval_mode_without_gradient():
    average = AveragedModel(make_network(0)).train()
    images = torch.rand(4, 3, 6, 6)
    assert torch.equal(average(images), average(images))
    assert not average(images).requires_grad


def test_average_is_saved_and_loaded():
    average, restored = AveragedModel(make_network(0)), AveragedModel(make_network(1))
    restored.load_state_dict(average.state_dict())
    images = torch.rand(4, 3, 6, 6)
    assert torch.equal(average(images), restored(images))


def test_model_without_buffers():
    network = nn.Linear(2, 2)
    AveragedModel(network).update(network, momentum=0.9)
