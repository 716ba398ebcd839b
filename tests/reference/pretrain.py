"""SimCLR and momentum contrast written from the papers' formulas, one row at a time."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

Views = tuple[Tensor, Tensor]


def unit(rows: Tensor) -> Tensor:
    return rows / rows.pow(2).sum(1, keepdim=True).sqrt()


def info_nce(query: Tensor, positive: Tensor, negatives: list[Tensor], temperature: float) -> Tensor:
    """-log of the positive's share (van den Oord et al., 2018)."""
    scores = [torch.exp(query @ key / temperature) for key in [positive, *negatives]]
    return -torch.log(scores[0] / sum(scores))


def simclr(model: nn.Module, views: Views, temperature: float) -> Tensor:
    """Chen et al., ICML 2020, equation 1, over all 2 n rows."""
    rows = unit(model(torch.cat(views)))
    n = len(rows) // 2
    terms = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [rows[k] for k in range(2 * n) if k not in (i, j)]
        terms.append(info_nce(rows[i], rows[j], others, temperature))
    return sum(terms) / len(terms)


class Trailing:
    """key = m key + (1 - m) model, at the beginning of each step (He et al., CVPR 2020, equation 2)."""

    def __init__(self, model: nn.Module, momentum: Callable[[int], float]):
        self.model, self.keys, self.momentum = model, deepcopy(model), momentum

    @torch.no_grad()
    def follow(self, step: int) -> None:
        m = self.momentum(step)
        for key, weight in zip(self.keys.parameters(), self.model.parameters(), strict=True):
            key.copy_(m * key + (1 - m) * weight)


class MoCo(Trailing):
    def __init__(self, model, momentum, queue: Tensor, temperature: float, symmetric: bool):
        super().__init__(model, momentum)
        self.queue, self.temperature, self.symmetric = list(queue), temperature, symmetric

    def loss(self, views: Views, step: int) -> Tensor:
        self.follow(step)
        terms, pushed = [], []
        for asking, asked in ((0, 1), (1, 0)) if self.symmetric else ((0, 1),):
            queries, keys = unit(self.model(views[asking])), unit(self.keys(views[asked])).detach()
            terms += [info_nce(*pair, self.queue, self.temperature) for pair in zip(queries, keys, strict=True)]
            pushed += list(keys)
        self.queue = (pushed + self.queue)[: len(self.queue)]
        return sum(terms) / len(terms)


class MoCoV3(Trailing):
    """Chen, Xie and He, ICCV 2021, algorithm 1."""

    def __init__(self, model, momentum, predictor: nn.Module, temperature: float):
        super().__init__(model, momentum)
        self.predictor, self.temperature = predictor, temperature

    def loss(self, views: Views, step: int) -> Tensor:
        self.follow(step)
        first, second = (unit(self.predictor(self.model(view))) for view in views)
        first_keys, second_keys = (list(unit(self.keys(view)).detach()) for view in views)
        total = torch.zeros((), dtype=first.dtype)
        for queries, keys in ((first, second_keys), (second, first_keys)):
            for i, query in enumerate(queries):
                others = [key for j, key in enumerate(keys) if j != i]
                total = total + 2 * self.temperature * info_nce(query, keys[i], others, self.temperature) / len(queries)
        return total
