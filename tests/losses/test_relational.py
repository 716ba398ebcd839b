import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ssl_transfer.losses import tiles
from tests.losses.catalog import CASES, embeddings, value_and_gradient


def losses_but(*excluded: str):
    """Parametrize by every loss but the ``excluded``, which a test must give a reason for."""
    kept = {name: case for name, case in CASES.items() if name not in excluded}
    return pytest.mark.parametrize("case", kept.values(), ids=kept.keys())


every_loss = losses_but()


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of three anchors whatever the number of rows, so that small batches take several, the last one short."""
    monkeypatch.setattr(tiles, "MINIMUM_ROWS", 3)
    monkeypatch.setattr(tiles, "CPU_ENTRIES", 1)


@every_loss
@pytest.mark.parametrize("n", [8, 11])
def test_value_and_gradient_are_those_of_the_slow_twin(case, n, small_tiles):
    student, teacher = embeddings(case, n)
    value, gradient = value_and_gradient(case.loss, student, teacher)
    expected_value, expected_gradient = value_and_gradient(case.twin, student, teacher)
    torch.testing.assert_close(value, expected_value, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-14)


@every_loss
def test_gradient_is_the_derivative_of_the_value(case, small_tiles):
    student, teacher = embeddings(case, 7)
    assert torch.autograd.gradcheck(lambda s: case.loss(s, teacher), student.requires_grad_())


@every_loss
def test_gradient_of_a_share_is_the_derivative_of_the_share(case, small_tiles):
    student, teacher = embeddings(case, 7)
    assert torch.autograd.gradcheck(lambda s: case.loss(s, teacher, anchors=slice(2, 6)), student.requires_grad_())


@every_loss
def test_shares_of_disjoint_anchors_add_up(case, small_tiles):
    student, teacher = embeddings(case, 13)
    value, gradient = value_and_gradient(case.loss, student, teacher)
    cuts = [slice(0, 4), slice(4, 4), slice(4, 5), slice(5, 13)]
    shares = [value_and_gradient(case.loss, student, teacher, anchors=anchors) for anchors in cuts]
    torch.testing.assert_close(sum(v for v, _ in shares), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(sum(g for _, g in shares), gradient, rtol=1e-12, atol=1e-16)


@every_loss
def test_the_size_of_a_tile_changes_nothing(case, monkeypatch):
    student, teacher = embeddings(case, 37)
    expected = value_and_gradient(case.loss, student, teacher)
    monkeypatch.setattr(tiles, "MINIMUM_ROWS", 8)
    monkeypatch.setattr(tiles, "CPU_ENTRIES", 1)
    torch.testing.assert_close(value_and_gradient(case.loss, student, teacher), expected, rtol=1e-12, atol=1e-15)


@every_loss
def test_upstream_gradient_scales_the_gradient(case):
    student, teacher = embeddings(case, 9)
    _, gradient = value_and_gradient(case.loss, student, teacher)
    _, tripled = value_and_gradient(lambda s: 3 * case.loss(s, teacher), student)
    torch.testing.assert_close(tripled, 3 * gradient)


@every_loss
def test_value_is_the_same_without_a_gradient(case):
    student, teacher = embeddings(case, 9)
    expected, _ = value_and_gradient(case.loss, student, teacher)
    assert case.loss(student, teacher) == expected
    with torch.no_grad():
        assert case.loss(student.requires_grad_(), teacher) == expected


@every_loss
def test_teacher_never_receives_a_gradient(case):
    student, teacher = embeddings(case, 9)
    teacher.requires_grad_()
    case.loss(student.requires_grad_(), teacher).backward()
    assert teacher.grad is None


@every_loss
def test_order_of_rows_does_not_matter(case):
    student, teacher = embeddings(case, 12)
    views = torch.arange(12).view(2, 6)  # rows i and i + 6 stay views of one image
    order = views[:, torch.randperm(6, generator=torch.Generator().manual_seed(1))].flatten()
    value, gradient = value_and_gradient(case.loss, student, teacher)
    shuffled_value, shuffled_gradient = value_and_gradient(case.loss, student[order], teacher[order])
    torch.testing.assert_close(shuffled_value, value)
    torch.testing.assert_close(shuffled_gradient, gradient[order])


MOVES = {
    "translation": lambda x: x + 3.0,
    "rotation": lambda x: x @ torch.linalg.qr(torch.arange(x.shape[1] ** 2).view(x.shape[1], -1).sin().to(x)).Q,
    "scale": lambda x: 100 * x,
}


@every_loss
@pytest.mark.parametrize("move", MOVES)
def test_student_may_be_moved_exactly_as_the_formula_says(case, move):
    student, teacher = embeddings(case, 12)
    same = torch.isclose(case.loss(MOVES[move](student), teacher), case.loss(student, teacher), rtol=1e-10, atol=0)
    assert same == (move in case.ignores)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of entries of the largest tensor that any operation returns."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        found = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.entries = max([self.entries, *found])
        return result


@losses_but("rkd_angle")  # takes one n x n matrix per vertex, as its docstring says
def test_no_tensor_grows_with_the_square_of_the_batch(case, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_ENTRIES", 2**12)
    n = 1024
    student, teacher = embeddings(case, n, dtype=torch.float32)
    with LargestTensor() as largest:
        value_and_gradient(case.loss, student, teacher)
    assert largest.entries <= n * tiles.MINIMUM_ROWS < n * n / 8


@losses_but("rkd_distance", "relaxed_contrastive, contextual")  # take a pass over all rows first, as they say
def test_a_share_computes_its_own_rows_only(case):
    student, teacher = embeddings(case, 600, dtype=torch.float32)
    if case is CASES["rkd_angle"]:
        student, teacher = student[:48], teacher[:48]

    def operations(anchors):
        with FlopCounterMode(display=False) as counter:
            value_and_gradient(case.loss, student, teacher, anchors=anchors)
        return counter.get_total_flops()

    # Halves, since a single tile of all pairs takes its two directions together, cheaper than the sum of its parts.
    half, quarter = (operations(slice(0, len(student) // parts)) for parts in (2, 4))
    assert quarter <= 0.51 * half


@every_loss
@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_refused_by_side_and_number(case, side, bad):
    student, teacher = embeddings(case, 9)
    {"student": student, "teacher": teacher}[side][[2, 5], 1] = bad
    with pytest.raises(ValueError, match=f"{side} has 2 of 9 rows that are not finite"):
        case.loss(student, teacher)


@every_loss
@pytest.mark.parametrize("anchors", [slice(0, 10), slice(-1, 4), slice(5, 3), slice(0, 8, 2)])
def test_anchors_outside_the_batch_are_refused(case, anchors):
    student, teacher = embeddings(case, 9)
    with pytest.raises(ValueError, match="anchors="):
        case.loss(student, teacher, anchors=anchors)


@losses_but("regression")  # plain operations of PyTorch
def test_second_derivatives_are_refused(case):
    student, teacher = embeddings(case, 9)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(case.loss(student, teacher), student, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()
