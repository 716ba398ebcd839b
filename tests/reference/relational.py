"""Relational losses as loops over rows, from their formulas: slow, dense and obvious.

Everything in the dtype of the inputs; the tests give float64.
"""

import math

import torch
from torch import Tensor


def distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|, with gradient zero where it is zero."""
    squared = (a - b).square().sum()
    return squared.sqrt() if squared > 0 else squared


def unit(x: Tensor) -> Tensor:
    return torch.stack([row / row.norm() for row in x])


def huber(x: Tensor) -> Tensor:
    return x.square() / 2 if x.abs() < 1 else x.abs() - 0.5


def gaussian_affinity(teacher: Tensor, sigma: float) -> Tensor:
    teacher = unit(teacher)
    return torch.stack([(-(teacher - row).square().sum(1) / sigma).exp() for row in teacher])


def standardized_affinity(teacher: Tensor) -> Tensor:
    teacher, n = unit(teacher), len(teacher)
    w = torch.ones(n, n, dtype=teacher.dtype)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        squared = torch.tensor([float((teacher[i] - teacher[j]).square().sum()) for j in others], dtype=teacher.dtype)
        deviation = (squared - squared.mean()).square().mean().sqrt() if others else 0
        for j, x in zip(others, squared, strict=True):
            z = (x - squared.mean()) / deviation if deviation > 1e-12 else 0
            w[i, j] = 1 / (1 + math.exp(2 * z + 3))
    return w


def contextual_affinity(teacher: Tensor, pairwise: Tensor, neighbors: int, image: Tensor | None) -> Tensor:
    """The affinity of STML, with sets."""
    n = len(teacher)
    order = gaussian_affinity(teacher, 1.0)
    if image is not None:
        order[image[:, None] == image] = 1
    nearest = [order[i].topk(neighbors).indices.tolist() for i in range(n)]
    reciprocal = [{j for j in nearest[i] if i in nearest[j]} for i in range(n)]
    overlap = torch.zeros(n, n, dtype=teacher.dtype)
    for i in range(n):
        for j in reciprocal[i]:
            overlap[i, j] = len(reciprocal[i] & reciprocal[j]) / len(reciprocal[i])
    half = torch.stack([overlap[nearest[i][: round(neighbors / 2)]].mean(0) for i in range(n)])
    return (pairwise + (half + half.T) / 2) / 2


def relative_distances(student: Tensor) -> list[list[Tensor]]:
    rows = [[distance(a, b) for b in student] for a in student]
    means = [torch.stack(row).mean() for row in rows]
    return [[d / mean if mean > 0 else d for d in row] for row, mean in zip(rows, means, strict=True)]


def relaxed_contrastive(student, teacher, *, delta=1.0, affinity=None) -> Tensor:
    w = standardized_affinity(teacher) if affinity is None else affinity
    d = relative_distances(student)
    n, total = len(student), student.new_zeros(())
    for i in range(n):
        for j in range(n):
            if i != j:
                total = total + w[i, j] * d[i][j] ** 2 + (1 - w[i, j]) * (delta - d[i][j]).relu() ** 2
    return total / n


def relaxed_multi_similarity(student, teacher, image, *, delta=1.0, alpha=1.0, beta=2.0, affinity=None) -> Tensor:
    w = standardized_affinity(teacher) if affinity is None else affinity
    d = relative_distances(student)
    n, total = len(student), student.new_zeros(())
    for i in range(n):
        pull, push = 1.0, 1.0
        for j in range(n):
            if i != j:
                label = 1.0 if image[i] == image[j] else w[i, j]
                pull = pull + label * (alpha * d[i][j]).exp()
                push = push + (1 - label) * (beta * (delta - d[i][j])).exp()
        total = total + pull.log() / alpha + torch.as_tensor(push).log() / beta
    return total / n


def rkd_distance(student, teacher) -> Tensor:
    n = len(student)

    def scaled(x):
        rows = torch.stack([torch.stack([distance(a, b) for b in x]) for a in x])
        mean = rows.sum() / (n * (n - 1))
        return rows / mean if mean > 0 else rows

    ours, theirs = scaled(student), scaled(teacher)
    return torch.stack([huber(ours[i, j] - theirs[i, j]) for i in range(n) for j in range(n)]).mean()


def cosine_at(x: Tensor, i: int, j: int, k: int) -> Tensor:
    a, b = x[j] - x[i], x[k] - x[i]
    if a.square().sum() == 0 or b.square().sum() == 0:
        return x.new_zeros(())
    return a @ b / (a.norm() * b.norm())


def rkd_angle(student, teacher) -> Tensor:
    n = range(len(student))
    terms = [huber(cosine_at(student, i, j, k) - cosine_at(teacher, i, j, k)) for i in n for j in n for k in n]
    return torch.stack(terms).mean()


def pkt(student, teacher) -> Tensor:
    n = len(student)

    def probabilities(x):
        x = torch.stack([row / (row.norm() + 1e-7) for row in x])
        similarity = torch.stack([torch.stack([(a @ b + 1) / 2 for b in x]) for a in x])
        return [row / row.sum() for row in similarity]

    p, q = probabilities(teacher), probabilities(student)
    return sum(p[i][j] * ((p[i][j] + 1e-7) / (q[i][j] + 1e-7)).log() for i in range(n) for j in range(n)) / n**2


def dark_rank(student, teacher, *, alpha=3.0, beta=3.0, length=4) -> Tensor:
    student, teacher = unit(student), unit(teacher)
    n, total = len(student), student.new_zeros(())
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: float(distance(teacher[i], teacher[j])))
        scores = [-alpha * distance(student[i], student[j]) ** beta for j in others[:length]]
        for m, score in enumerate(scores):
            total = total - (score.exp() / sum(s.exp() for s in scores[m:])).log()
    return total / n


def similarity_preserving(student, teacher) -> Tensor:
    n = len(student)

    def rows(x):
        return [row / row.norm() for row in (torch.stack([a @ b for b in x]) for a in x)]

    return sum((a - b).square().sum() for a, b in zip(rows(student), rows(teacher), strict=True)) / n**2


def correlation_congruence(student, teacher, *, gamma=0.4, order=2) -> Tensor:
    student, teacher = unit(student), unit(teacher)
    n, total = len(student), student.new_zeros(())

    def kernel(a, b):
        series = [(2 * gamma * (a @ b)) ** p / math.factorial(p) for p in range(order + 1)]
        return math.exp(-2 * gamma) * sum(series)

    for i in range(n):
        for j in range(n):
            total = total + (kernel(student[i], student[j]) - kernel(teacher[i], teacher[j])) ** 2
    return total / n**2


def regression(student, teacher) -> Tensor:
    n, width = teacher.shape
    total = student.new_zeros(())
    for k in range(width):
        column = [float(t[k]) for t in teacher]
        mean = sum(column) / n
        deviation = (sum((x - mean) ** 2 for x in column) / n) ** 0.5
        for s, x in zip(student, column, strict=True):
            total = total + (s[k] - (x - mean) / deviation) ** 2
    return total / (n * width)


def seed(student, teacher, queue, *, student_temperature=0.2, teacher_temperature=0.01) -> Tensor:
    student, teacher, queue = unit(student), unit(teacher), unit(queue)
    total = student.new_zeros(())
    for s, t in zip(student, teacher, strict=True):
        candidates = [t, *queue]
        target = torch.stack([t @ c / teacher_temperature for c in candidates]).exp()
        guess = torch.stack([s @ c / student_temperature for c in candidates]).exp()
        total = total - (target / target.sum() * (guess / guess.sum()).log()).sum()
    return total / len(student)
