"""The kinds of scores that a recipe asks for, and the measure that each of them is."""

from collections.abc import Callable, Mapping, Sequence

from ssl_transfer import config
from ssl_transfer.scoring import measures
from ssl_transfer.scoring.features import exact
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject

_DURING_TRAINING = (config.Monitor, config.BestOnTest)  # measured then, not by the features of the end
_FIT_ON_TRAINING = (config.KNN, config.LinearProbe, config.FewShot)


def needed_layers(kinds: Sequence[config.Score]) -> dict[str, bool]:
    """The layers whose features these kinds of scores look at, and whether at those of the training images too."""
    needed: dict[str, bool] = {}
    for kind in kinds:
        if not isinstance(kind, _DURING_TRAINING):
            needed[_layer(kind)] = needed.get(_layer(kind), False) or isinstance(kind, _FIT_ON_TRAINING)
    return needed


def score_subject(
    subjects: Mapping[str, Subject],
    kinds: Sequence[config.Score],
    *,
    seed: int,
    teacher: Mapping[str, Subject] | None,
    main: bool,
    classes: int | None = None,
) -> list[Score]:
    """Every score of ``kinds`` of one model, given as the subject of each layer, on the ``main`` process.

    Its classifier is scored if it has so many ``classes``: one of another number knows other classes than the images.
    What shows the network augmented images is computed by all processes; the others leave the rest to the main one.
    """
    scores: list[Score] = []
    for kind in kinds:
        if isinstance(kind, _DURING_TRAINING):
            continue
        subject, together = subjects[_layer(kind)], isinstance(kind, config.Finetune) or _is_augmented(kind)
        if not (main or together):
            continue
        with exact():
            found = _score(kind, subject, seed, classes, None if teacher is None else teacher[_layer(kind)])
        scores += found if main else []
    return scores


def _score(
    kind: config.Score, subject: Subject, seed: int, classes: int | None, teacher: Subject | None
) -> list[Score]:
    settings = kind.model_dump(exclude={"kind", "layer"})
    if isinstance(kind, config.KNN):
        return measures.knn(subject, **settings | {"temperature": [kind.temperature]})
    if isinstance(kind, config.Retrieval):
        return measures.retrieval(subject, **settings)
    if isinstance(kind, config.Agreement):
        return [] if teacher is None else measures.agreement(subject, teacher, **settings, seed=seed)
    if isinstance(kind, config.Classification):
        return measures.classification(subject, **settings, classes=classes)
    seeded: dict[type, Callable[..., list[Score]]] = {
        config.LinearProbe: measures.linear_probe,
        config.FewShot: measures.few_shot,
        config.Finetune: measures.finetune,
        config.Clustering: measures.clustering,
    }
    return seeded[type(kind)](subject, **settings, seed=seed)


def _layer(kind: config.Score) -> str:
    return "output" if isinstance(kind, config.Classification) else getattr(kind, "layer", "features")


def _is_augmented(kind: config.Score) -> bool:
    return isinstance(kind, config.LinearProbe) and kind.protocol == "augmented"
