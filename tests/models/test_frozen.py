import pickle
from copy import deepcopy

import pytest
import torch
from torch import nn

from ssl_transfer.models import Frozen


def make_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())


class Pair(nn.Module):
    """A student that holds its teacher, as a transfer task does."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(3, 2)
        self.teacher = Frozen(make_network())


@pytest.fixture
def images():
    return torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def test_training_mode_cannot_be_switched_on(images):
    pair = Pair().train()
    before = deepcopy(pair.teacher.module.state_dict())
    first, second = pair.teacher(images), pair.teacher(images)
    assert torch.equal(first, second), "dropout is off"
    assert not any(module.training for module in pair.teacher.module.modules())
    for name, tensor in pair.teacher.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_no_gradient_reaches_it(images):
    teacher = Frozen(make_network())
    assert not teacher(images.requires_grad_()).requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_it_is_in_nobodys_checkpoint():
    pair = Pair()
    assert pair.teacher.state_dict() == {}
    assert set(pair.state_dict()) == {"student.weight", "student.bias"}


def test_checkpoint_without_it_loads_strictly():
    pair, other = Pair(), Pair()
    before = deepcopy(pair.teacher.module.state_dict())
    result = pair.load_state_dict(other.state_dict())
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert torch.equal(pair.student.weight, other.student.weight)
    for name, tensor in pair.teacher.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_checkpoint_with_a_teacher_does_not_change_it():
    pair = Pair()
    before = deepcopy(pair.teacher.module.state_dict())
    intruder = {f"teacher.module.{name}": torch.zeros_like(tensor) for name, tensor in before.items()}
    pair.load_state_dict({**pair.state_dict(), **intruder})
    for name, tensor in pair.teacher.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_missing_keys_of_the_student_are_still_errors():
    with pytest.raises(RuntimeError, match="student.bias"):
        Pair().load_state_dict({"student.weight": torch.zeros(2, 3)})


def test_it_can_be_copied_and_pickled(images):
    teacher = Frozen(make_network())
    for twin in (deepcopy(teacher), pickle.loads(pickle.dumps(teacher))):
        assert torch.equal(twin(images), teacher(images))
        assert not any(module.training for module in twin.train().module.modules())


def test_it_moves_with_its_owner(images):
    pair = Pair().to(torch.float64)
    assert pair.teacher(images.double()).dtype == torch.float64
