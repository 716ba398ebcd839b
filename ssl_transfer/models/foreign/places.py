"""Where in a file the weights of a network are: they may be below any name, and there more than once."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_transfer.models.backbones import Backbone
from ssl_transfer.models.foreign.fitting import COUNTER, Fit, Misfit, fit, needed

# Names of weights that trail behind others, which were trained: timm's state_dict_ema, model_ema, momentum_encoder.
_AVERAGED = re.compile(r"(^|[^a-z])(ema|swa|averaged?|momentum|shadow|target)($|[^a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Weights of a network in a file: ``prefix`` is empty or ends in a dot, the names in ``fit`` are the file's."""

    prefix: str
    fit: Fit

    def differs_from(self, other: "Place") -> bool:
        """Whether the values are others, not the same or a copy of them."""
        ours, theirs = self.fit.state, other.fit.state
        shared = (name for name in ours if name in theirs and ours[name] is not theirs[name])
        return any(not torch.equal(ours[name], theirs[name]) for name in shared)


def places(tensors: Mapping[str, Tensor], backbone: Backbone, stem: str) -> tuple[list[Place], Misfit | None]:
    """Everywhere that the file has all weights of ``backbone``; and why not where it comes nearest, if it has nowhere.

    ``stem`` is the one that the backbone was built with. The misfit's sentence begins after the name of the file.
    """
    below: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if not name.endswith(COUNTER):
            for prefix in prefixes(name):
                below[prefix][name[len(prefix) :]] = tensor
    count = len(needed(backbone.network))
    fewest = min(count // 2, max(map(len, below.values()), default=0))
    found: dict[frozenset[str], Place] = {}
    nearest: tuple[tuple[int, bool, int, int], str, Misfit] | None = None
    for prefix, given in below.items():
        if len(given) < fewest:
            continue
        try:
            fitting = fit(backbone, given, stem)
        except Misfit as error:
            begins = any(tensor.ndim == 4 and tensor.shape[1] == len(backbone.mean) for tensor in given.values())
            rank = (error.matched, begins, -abs(len(given) - count), len(prefix))  # a part of a network lacks its stem
            if nearest is None or rank > nearest[0]:
                nearest = rank, prefix, error
            continue
        used = frozenset(prefix + name for name in fitting.used)
        if used not in found or len(prefix) > len(found[used].prefix):  # the longest name of the same weights
            found[used] = Place(prefix, Fit(fitting.state, used, fitting.resized))
    if found or nearest is None:
        return list(found.values()), None
    _, prefix, misfit = nearest
    where = f"(below {prefix.removesuffix('.')}) " if prefix else ""
    return [], Misfit(f"{where}{misfit}", misfit.matched)


def prefixes(name: str) -> Iterable[str]:
    """The beginnings of a dotted name at which it can be cut: none, and after each of its dots."""
    return ("", *(name[: dot.end()] for dot in re.finditer(r"\.", name)))


def choose(found: list[Place]) -> Place:
    """The weights to take of those found.

    Averages of weights are left where the weights themselves are there too.

    Raises:
        ValueError: more than one could be meant; a sentence that begins after "the file".
    """
    trained = [place for place in found if not _AVERAGED.search(place.prefix)] or found
    chosen, *rivals = trained
    if rivals := [place for place in rivals if place.differs_from(chosen)]:
        names = [place.prefix.removesuffix(".") or '""' for place in (chosen, *rivals)]
        raise ValueError(
            f"has the weights of this network {len(names)} times, with different values, below {', '.join(names[:-1])} "
            f"and {names[-1]}: write prefix: {names[0]}, or another of these, for the one to take"
        )
    return max((place for place in trained if not place.differs_from(chosen)), key=lambda place: len(place.fit.used))
