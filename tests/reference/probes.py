"""The evaluators' formulas written out one image at a time in float64: slow, obvious twins."""

import math

import torch
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def knn_votes(train_x: Tensor, train_y: Tensor, query: Tensor, k: int, temperature: float, num_classes: int) -> list:
    """Votes of the k most similar training rows, each exp(cosine / temperature): Wu et al., CVPR 2018, section 3.4."""
    similar = sorted(((cosine(query, row), int(label)) for row, label in zip(train_x, train_y, strict=True)))[::-1]
    votes = [0.0] * num_classes
    for similarity, label in similar[:k]:
        votes[label] += math.exp(similarity / temperature)
    return votes


def ranking(x: Tensor, query: int) -> list[int]:
    """All other rows, the nearest first."""
    distance = (x - x[query]).norm(dim=1).tolist()
    return sorted((i for i in range(len(x)) if i != query), key=lambda i: distance[i])


def retrieval(x: Tensor, y: Tensor, k: int) -> tuple[float, float, float]:
    """Recall@k, MAP@R and R-precision, Euclidean, over queries that have someone to find."""
    recalls, average_precisions, precisions = [], [], []
    for query in range(len(x)):
        match = [bool(y[i] == y[query]) for i in ranking(x, query)]
        r = sum(match)
        if r == 0:
            continue
        recalls.append(any(match[:k]))
        precisions.append(sum(match[:r]) / r)
        average_precisions.append(sum(sum(match[: i + 1]) / (i + 1) for i in range(r) if match[i]) / r)
    n = len(recalls)
    return sum(recalls) / n, sum(average_precisions) / n, sum(precisions) / n


def neighbor_overlap(student: Tensor, teacher: Tensor, k: int) -> float:
    """Share of common members of the two lists of k nearest, averaged over images."""
    shared = [len(set(ranking(student, i)[:k]) & set(ranking(teacher, i)[:k])) / k for i in range(len(student))]
    return sum(shared) / len(shared)


def linear_cka(student: Tensor, teacher: Tensor) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the n x n linear kernels, with the centering matrix H."""
    n = len(student)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    k, kernel = h @ (student @ student.T) @ h, h @ (teacher @ teacher.T) @ h
    return (torch.trace(k @ kernel) / (torch.trace(k @ k) * torch.trace(kernel @ kernel)).sqrt()).item()


def uniformity(x: Tensor) -> float:
    x = x / x.norm(dim=1, keepdim=True)
    pairs = [math.exp(-2 * (x[i] - x[j]).square().sum().item()) for i in range(len(x)) for j in range(i)]
    return math.log(sum(pairs) / len(pairs))


def logistic_objective(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, strength: float) -> float:
    """Mean cross-entropy + strength / 2 |weight|^2."""
    loss = 0.0
    for row, label in zip(x, y, strict=True):
        logits = weight @ row + bias
        loss += (torch.logsumexp(logits, 0) - logits[label]).item()
    return loss / len(x) + strength / 2 * weight.square().sum().item()
