"""Scores: one file a kind, with its section of a recipe, its columns, what it refuses, its measure and its protocol.

A file of this folder that defines a :class:`ScoreSection` adds a kind, of which nothing else has to know. Loads no
torch: recipes are checked by these sections before anything runs.
"""

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from ssl_transfer.scores.base import ScoreSection

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

KINDS: tuple[type[ScoreSection], ...] = tuple(ScoreSection.__subclasses__())

if TYPE_CHECKING:
    AnyScore = ScoreSection
else:
    AnyScore = Annotated[reduce(or_, KINDS), Field(discriminator="kind")]


def _differ(scores: Sequence[ScoreSection]) -> Sequence[ScoreSection]:
    columns = Counter(column for score in scores for column in score.columns())
    twice = [column for column, count in columns.items() if count > 1]
    if twice:
        raise ValueError(f"two entries give the column {twice[0]!r}: change a setting of one that shows in its name")
    alone = Counter(score.kind for score in scores if score.alone)
    for kind, count in alone.items():
        if count > 1:
            raise ValueError(f"two entries are of the kind {kind}: keep one of them")
    return scores


Scores = Annotated[list[AnyScore], AfterValidator(_differ)]
