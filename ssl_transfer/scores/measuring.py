"""All scores that a recipe asks for, of one model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ssl_transfer.scores.base import Measuring, ScoreSection
from ssl_transfer.scores.score import Score

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_transfer.features.model_features import ModelFeatures


def needed_layers(asked: Sequence[ScoreSection]) -> dict[str, bool]:
    """The layers whose features the scores look at, and whether at those of the training images too."""
    needed: dict[str, bool] = {}
    for kind in asked:
        if not kind.during_training:
            layer = kind.scored_layer
            needed[layer] = needed.get(layer, False) or kind.reads_training_features
    return needed


def measure_all(
    layers: "Mapping[str, ModelFeatures]",
    asked: Sequence[ScoreSection],
    *,
    seed: int,
    teachers: "Sequence[Mapping[str, ModelFeatures]]" = (),
    main: bool,
    classes: int | None = None,
    predicted: "dict[str, Tensor] | None" = None,
    watched: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> list[Score]:
    """Every score of ``asked`` of one model, of which ``layers`` has the features by layer; on the ``main`` process.

    ``teachers`` have those of each teacher likewise; ``classes`` and ``predicted`` are those of
    :class:`~ssl_transfer.scores.base.Measuring`. The other processes take part where a kind needs them, and return
    nothing. Each measure is taken inside ``watched`` of its first column.
    """
    from ssl_transfer.distributed import meet
    from ssl_transfer.features.extraction import exact

    scores: list[Score] = []
    predicted = {} if predicted is None else predicted
    for kind in asked:
        if kind.during_training or not (main or kind.needs_all_processes):
            continue
        if kind.needs_all_processes:
            meet()  # what the main process measured alone before may have taken hours
        layer = kind.scored_layer
        measuring = Measuring(seed, [teacher[layer] for teacher in teachers], classes, predicted)
        with watched(next(iter(kind.columns()), kind.kind)), exact():
            found = kind.measure(layers[layer], measuring)
        scores += found if main else []
    return scores
