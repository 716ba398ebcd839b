"""Every relational loss beside its slow twin, behind one signature, so that a property is tested for all of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_transfer import losses
from tests.reference import relational as twin


def two_views(rows: Tensor) -> Tensor:
    """Image of every row when the first and second half are two views of the same images."""
    n = len(rows)
    return torch.arange(n, device=rows.device) % -(-n // 2)


def queue_for(teacher: Tensor) -> Tensor:
    """A queue as wide as the teacher, the same for every process."""
    generator = torch.Generator().manual_seed(5)
    queue = torch.randn(7, teacher.shape[1], generator=generator, dtype=torch.float64)
    return queue.to(teacher)


class Case(NamedTuple):
    """A loss ``(student, teacher, anchors=None)``, its twin ``(student, teacher)`` and what it does not notice."""

    loss: Callable[..., Tensor]
    twin: Callable[..., Tensor]
    ignores: frozenset[str] = frozenset()
    same_width: bool = False


def gaussian(student, teacher, anchors=None):
    return losses.relaxed_contrastive(student, teacher, affinity="gaussian", sigma=1.0, anchors=anchors)


def gaussian_twin(student, teacher):
    return twin.relaxed_contrastive(student, teacher, affinity=twin.gaussian_affinity(teacher, 1.0))


def contextual(student, teacher, anchors=None):
    return losses.relaxed_contrastive(
        student,
        teacher,
        sigma=3.0,
        affinity="contextual",
        neighbors=4,
        image=two_views(student),
        anchors=anchors,
    )


def contextual_twin(student, teacher):
    pairwise = twin.gaussian_affinity(teacher, 3.0)
    affinity = twin.contextual_affinity(teacher, pairwise, 4, two_views(student))
    return twin.relaxed_contrastive(student, teacher, affinity=affinity)


def multi_similarity(student, teacher, anchors=None):
    return losses.relaxed_multi_similarity(student, teacher, two_views(student), anchors=anchors)


def multi_similarity_twin(student, teacher):
    return twin.relaxed_multi_similarity(student, teacher, two_views(student))


def seed(student, teacher, anchors=None):
    return losses.seed(student, teacher, queue_for(teacher), anchors=anchors)


def seed_twin(student, teacher):
    return twin.seed(student, teacher, queue_for(teacher))


SIMILARITY = frozenset({"translation", "rotation", "scale"})
CASES = {
    "relaxed_contrastive": Case(losses.relaxed_contrastive, twin.relaxed_contrastive, SIMILARITY),
    "relaxed_contrastive, gaussian": Case(gaussian, gaussian_twin, SIMILARITY),
    "relaxed_contrastive, contextual": Case(contextual, contextual_twin, SIMILARITY),
    "relaxed_multi_similarity": Case(multi_similarity, multi_similarity_twin, SIMILARITY),
    "rkd_distance": Case(losses.rkd_distance, twin.rkd_distance, SIMILARITY),
    "rkd_angle": Case(losses.rkd_angle, twin.rkd_angle, SIMILARITY),
    "pkt": Case(losses.pkt, twin.pkt, frozenset({"rotation"})),  # its 1e-7 beside the norm sees the scale
    "dark_rank": Case(losses.dark_rank, twin.dark_rank, frozenset({"rotation", "scale"})),
    "similarity_preserving": Case(
        losses.similarity_preserving, twin.similarity_preserving, frozenset({"rotation", "scale"})
    ),
    "correlation_congruence": Case(
        losses.correlation_congruence, twin.correlation_congruence, frozenset({"rotation", "scale"})
    ),
    "regression": Case(losses.regression, twin.regression, same_width=True),
    "seed": Case(seed, seed_twin, frozenset({"scale"}), same_width=True),
}


def embeddings(case: Case, n: int, seed: int = 0, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    """Student and teacher of ``n`` rows, of different widths unless the loss compares them directly."""
    generator = torch.Generator().manual_seed(seed)
    width = 6 if case.same_width else 5
    student = torch.randn(n, width, generator=generator, dtype=torch.float64)
    teacher = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return student.to(dtype), teacher.to(dtype)


def value_and_gradient(loss: Callable[..., Tensor], student: Tensor, *rest, **options) -> tuple[Tensor, Tensor]:
    """The value and its gradient with respect to ``student``."""
    student = student.detach().clone().requires_grad_()
    value = loss(student, *rest, **options)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient
