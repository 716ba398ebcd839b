"""Feature and logit losses as loops over rows and entries, from their formulas."""

import math

import torch
from torch import Tensor


def pooled(x: Tensor, height: int, width: int) -> Tensor:
    """Means over the cells of a coarser grid; the sizes divide."""
    n, c, h, w = x.shape
    return x.view(n, c, height, h // height, width, w // width).mean(dim=(3, 5))


def convolved(weight: Tensor, x: Tensor) -> Tensor:
    """1x1 convolution without bias."""
    return torch.einsum("oc,nchw->nohw", weight.flatten(1), x)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    total, count = student.new_zeros(()), 0
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = s.square().mean(0).flatten(), t.square().mean(0).flatten()
        total = total + (ours / ours.norm() - theirs / theirs.norm()).square().sum()
        count += len(ours)
    return total / count


def vid(student: Tensor, teacher: Tensor, weights: list[Tensor], raw_variance: Tensor) -> Tensor:
    for weight in weights[:-1]:
        student = convolved(weight, student).relu()
    mean = convolved(weights[-1], student)
    channels = []
    for c, raw in enumerate(raw_variance):
        variance = (1 + raw.exp()).log() + 1e-5
        channels.append(((teacher[:, c] - mean[:, c]) ** 2 / variance + variance.log()) / 2)
    return torch.stack(channels).mean()


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    total = student.new_zeros(())
    for s, t in zip(student, teacher, strict=True):
        p, q = (t / temperature).exp(), (s / temperature).exp()
        p, q = p / p.sum(), q / q.sum()
        total = total + (p * (p / q).log()).sum()
    return temperature**2 * total / len(student)


def contrastive_representation(
    z_student: Tensor,
    z_teacher: Tensor,
    memory_student: Tensor,
    memory_teacher: Tensor,
    image: list[int],
    negatives: list[list[int]],
    normalizers: tuple[float, float],
    temperature: float,
) -> Tensor:
    """CRD of embeddings of length one against two memories, pair by pair."""
    size, k = len(memory_student), len(negatives[0])
    noise, total = k / size, z_student.new_zeros(())
    for z, memory, normalizer in zip(
        (z_student, z_teacher), (memory_teacher, memory_student), normalizers, strict=True
    ):
        for i, row in enumerate(z):

            def p(place, row=row, memory=memory, normalizer=normalizer):
                return (row @ memory[place] / temperature).exp() / normalizer

            total = total - (p(image[i]) / (p(image[i]) + noise + 1e-7)).log()
            for place in negatives[i]:
                total = total - (noise / (p(place) + noise + 1e-7)).log()
    return total / len(z_student)


def mean_score(z: Tensor, memory: Tensor, places: list[list[int]], temperature: float) -> float:
    rows = zip(z.detach(), places, strict=True)
    scores = [math.exp(float(row @ memory[place]) / temperature) for row, mine in rows for place in mine]
    return len(memory) * sum(scores) / len(scores)
