"""Scores: one file a kind, with its section of a recipe, its columns, what it refuses, its measure and its protocol.

A file of this folder that defines a :class:`ScoreSection` adds a kind, of which nothing else has to know. Loads no
torch: recipes are checked by these sections before anything runs.
"""

from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ssl_transfer.scores.base import ScoreSection

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

KINDS: tuple[type[ScoreSection], ...] = tuple(ScoreSection.__subclasses__())

if TYPE_CHECKING:
    AnyScore = ScoreSection
else:
    AnyScore = Annotated[reduce(or_, KINDS), Field(discriminator="kind")]


Scores = list[AnyScore]
