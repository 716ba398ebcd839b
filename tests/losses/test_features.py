import math

import pytest
import torch

from ssl_transfer import losses
from ssl_transfer.losses import tiles
from tests.reference import pointwise as twin


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(module: torch.nn.Module, seed: int = 3) -> torch.nn.Module:
    """The module in float64 with weights large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    return module


# Student and teacher maps (height, width): the same, the teacher's smaller, the student's smaller, one of each.
SIZES = [((4, 6), (4, 6)), ((8, 12), (4, 6)), ((4, 6), (8, 12)), ((8, 6), (4, 12))]


@pytest.fixture(params=SIZES, ids=str)
def pair(request):
    (h_student, w_student), (h_teacher, w_teacher) = request.param
    return maps(5, 3, h_student, w_student), maps(5, 7, h_teacher, w_teacher, seed=1)


def smaller(x: torch.Tensor) -> torch.Tensor:
    return twin.pooled(x, 4, 6)


def test_fitnet_is_the_mean_squared_error_of_the_convolved_map(pair):
    student, teacher = pair
    fitnet = seeded(losses.FitNet(3, 7))
    expected = (twin.convolved(fitnet.regressor.weight, smaller(student)) - smaller(teacher)).square().mean()
    torch.testing.assert_close(fitnet(student, teacher), expected)


def test_fitnet_starts_small():
    weight = losses.FitNet(64, 256).regressor.weight
    assert 0.0049 < weight.abs().max() <= 0.005


def test_attention_transfer_is_that_of_the_slow_twin(pair):
    student, teacher = pair
    expected = twin.attention_transfer(smaller(student), smaller(teacher))
    torch.testing.assert_close(losses.attention_transfer(student, teacher), expected)


def test_vid_is_that_of_the_slow_twin(pair):
    student, teacher = pair
    vid = seeded(losses.VID(3, 7))
    weights = [layer.weight for layer in vid.mean if isinstance(layer, torch.nn.Conv2d)]
    expected = twin.vid(smaller(student), smaller(teacher), weights, vid.raw_variance)
    torch.testing.assert_close(vid(student, teacher), expected)


def test_vid_starts_with_variance_five():
    vid = losses.VID(3, 7)
    student, teacher = torch.zeros(2, 3, 4, 4), torch.zeros(2, 7, 4, 4)
    torch.testing.assert_close(vid(student, teacher).item(), math.log(5) / 2, rtol=1e-6, atol=0)


def test_soft_targets_are_those_of_the_slow_twin():
    student, teacher = 3 * maps(6, 10), 3 * maps(6, 10, seed=1)
    expected = twin.soft_targets(student, teacher, 2.5)
    torch.testing.assert_close(losses.soft_targets(student, teacher, temperature=2.5), expected)


def losses_of_maps():
    """Every mean over rows, as a function of student, teacher and rows."""
    return {
        "fitnet": seeded(losses.FitNet(3, 3)),
        "attention_transfer": losses.attention_transfer,
        "vid": seeded(losses.VID(3, 3)),
        "soft_targets": lambda s, t, rows=None: losses.soft_targets(s.flatten(1), t.flatten(1), rows=rows),
    }


every_mean = pytest.mark.parametrize("name", losses_of_maps())


@every_mean
def test_shares_of_rows_add_up_to_the_mean(name):
    loss = losses_of_maps()[name]
    student, teacher = maps(9, 3, 4, 4).requires_grad_(), maps(9, 3, 4, 4, seed=1)
    whole = loss(student, teacher)
    parts = sum(loss(student[rows], teacher[rows], rows=9) for rows in (slice(0, 2), slice(2, 3), slice(3, 9)))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(parts, student), torch.autograd.grad(whole, student), rtol=1e-12, atol=1e-16
    )


@every_mean
def test_gradient_is_the_derivative_of_the_value(name):
    loss = losses_of_maps()[name]
    student, teacher = maps(3, 3, 4, 4).requires_grad_(), maps(3, 3, 4, 4, seed=1)
    learnt = list(loss.parameters()) if isinstance(loss, torch.nn.Module) else []
    assert torch.autograd.gradcheck(lambda s, *_: loss(s, teacher), (student, *learnt))


@every_mean
def test_teacher_never_receives_a_gradient(name):
    student, teacher = maps(3, 3, 4, 4).requires_grad_(), maps(3, 3, 4, 4, seed=1).requires_grad_()
    losses_of_maps()[name](student, teacher).backward()
    assert teacher.grad is None and student.grad is not None


@every_mean
def test_rows_that_are_not_finite_are_refused_by_side_and_number(name):
    student, teacher = maps(3, 3, 4, 4), maps(3, 3, 4, 4, seed=1)
    teacher[1, 2, 3, 0] = float("nan")
    with pytest.raises(ValueError, match="teacher has 1 of 3 rows that are not finite"):
        losses_of_maps()[name](student, teacher)


@every_mean
def test_bfloat16_inputs_are_summed_in_float32(name):
    student, teacher = maps(64, 3, 8, 8).bfloat16(), maps(64, 3, 8, 8, seed=1).bfloat16()
    expected = losses_of_maps()[name](student.double(), teacher.double())
    loss = losses_of_maps()[name]
    if isinstance(loss, torch.nn.Module):
        loss, student, teacher = loss.float(), student.float(), teacher.float()
    torch.testing.assert_close(loss(student, teacher).double(), expected, rtol=1e-5, atol=0)


# --- CRD ---

SIZE, K = 20, 6


def crd() -> losses.ContrastiveRepresentation:
    generator = torch.Generator().manual_seed(0)
    module = losses.ContrastiveRepresentation(5, 7, SIZE, width=4, temperature=0.5, generator=generator)
    return seeded(module)


def crd_batch():
    generator = torch.Generator().manual_seed(1)
    image = torch.tensor([3, 11, 0, 19, 3, 11, 0, 19])  # two views of four images
    return maps(8, 5), maps(8, 7, seed=1), image, torch.randint(SIZE, (8, K), generator=generator)


def expected_crd(module, student, teacher, image, negatives):
    """Value by the slow twin, from the memory as it is before the call."""
    ours, theirs = (
        torch.nn.functional.normalize(embed(x), dim=1)
        for embed, x in ((module.embed_student, student), (module.embed_teacher, teacher))
    )
    places = [[int(y), *row] for y, row in zip(image, negatives.tolist(), strict=True)]
    normalizers = (
        twin.mean_score(ours, module.memory_teacher, places, 0.5),
        twin.mean_score(theirs, module.memory_student, places, 0.5),
    )
    memories = module.memory_student.clone(), module.memory_teacher.clone()
    arguments = (image.tolist(), negatives.tolist(), normalizers, 0.5)
    return twin.contrastive_representation(ours, theirs, *memories, *arguments)


def test_crd_value_and_gradients_are_those_of_the_slow_twin(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_ENTRIES", 1)
    monkeypatch.setattr(tiles, "MINIMUM_ROWS", 12)  # three anchors a tile
    module, batch = crd(), crd_batch()
    batch[0].requires_grad_()
    wanted = [batch[0], *module.parameters()]
    expected = expected_crd(module, *batch)
    expected_gradients = torch.autograd.grad(expected, wanted)
    value = module(*batch)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(value, wanted), expected_gradients, rtol=1e-9, atol=1e-12)


def test_crd_remembers_the_mean_over_views_of_the_images_in_the_batch_and_nothing_else():
    module, (student, teacher, image, negatives) = crd(), crd_batch()
    before = module.memory_student.clone()
    module(student, teacher, image, negatives)
    embedded = torch.nn.functional.normalize(module.embed_student(student), dim=1)
    for y in range(SIZE):
        if y not in image:
            assert torch.equal(module.memory_student[y], before[y])
            continue
        mixed = 0.5 * before[y] + 0.5 * embedded[image == y].mean(0)
        torch.testing.assert_close(module.memory_student[y], mixed / mixed.norm())


def test_crd_normalizer_is_set_once_and_kept_in_the_state():
    module, batch = crd(), crd_batch()
    module(*batch)
    first = module.normalizer.clone()
    module(2 * batch[0], *batch[1:])
    assert torch.equal(module.normalizer, first)
    resumed = crd()
    resumed.load_state_dict(module.state_dict())
    torch.testing.assert_close(resumed(*batch), module(*batch))


def test_crd_shares_of_anchors_add_up_and_leave_equal_memories():
    batch = crd_batch()
    whole, parts = crd(), [crd() for _ in range(3)]
    value = whole(*batch)
    cuts = [slice(0, 1), slice(1, 6), slice(6, 8)]
    *rows, negatives = batch
    with pytest.raises(ValueError, match="are a part of 8 rows: give add_up"):
        parts[0](*rows, negatives[cuts[0]], anchors=cuts[0])
    shares = []
    for part, anchors in zip(parts, cuts, strict=True):
        part.normalizer.copy_(whole.normalizer)  # as several processes make it together: see test_distributed
        shares.append(part(*rows, negatives[anchors], anchors=anchors))
    with pytest.raises(ValueError, match="negatives has 8 rows: give one for each of the 5 anchors"):
        parts[1](*batch, anchors=cuts[1])
    torch.testing.assert_close(sum(shares), value, rtol=1e-12, atol=0)
    gradient = torch.autograd.grad(value, whole.embed_student.weight)[0]
    found = [torch.autograd.grad(s, p.embed_student.weight)[0] for s, p in zip(shares, parts, strict=True)]
    torch.testing.assert_close(sum(found), gradient, rtol=1e-12, atol=1e-15)
    for part in parts:
        assert torch.equal(part.memory_student, whole.memory_student)
        assert torch.equal(part.memory_teacher, whole.memory_teacher)
