"""Scores: one file a kind, with its section of a recipe, its columns, what it refuses, its measure and its protocol.

A file of this folder that defines a :class:`ScoreSection` adds a kind, of which nothing else has to know. Loads no
torch: recipes are checked by these sections before anything runs.
"""

from collections.abc import Sequence
from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ssl_transfer.catalog.roles import TRAINED
from ssl_transfer.scores.base import ScoreSection
from ssl_transfer.scores.score import Score

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

KINDS: tuple[type[ScoreSection], ...] = tuple(ScoreSection.__subclasses__())

if TYPE_CHECKING:
    AnyScore = ScoreSection
else:
    AnyScore = Annotated[reduce(or_, KINDS), Field(discriminator="kind")]


Scores = list[AnyScore]


def explain(taken: Sequence[Score]) -> str:
    """How scores of one metric were taken, in sentences for a person: those of the trained model, if one is theirs."""
    score = next((score for score in taken if score.role in TRAINED), taken[0])
    protocol = score.protocol
    sentences = [kind.explain(protocol) for kind in KINDS if kind.took(protocol)]
    if "n_train" in protocol and "n_test" in protocol:
        sentences.append(f"{protocol['n_train']:,} training and {protocol['n_test']:,} test images.")
    if "layer" in protocol:
        width = f", {protocol['width']} numbers an image" if "width" in protocol else ""
        sentences.append(f"Looked at: the {protocol['layer']} of {score.model}{width}.")
    return " ".join(sentences)
