"""What every part of a recipe is made of: strict sections, the kinds of values they hold, and the words of problems."""

import difflib
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from ssl_transfer.catalog.presets import PRESETS

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Range = Annotated[tuple[Positive, Positive], Strict(False)]
Color = Annotated[tuple[float, ...], Strict(False), Field(min_length=1)]
Counts = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no silent conversion, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def suggest(given: Any, allowed: Any) -> str:
    """The end of a sentence about an unknown name: the nearest one if there is one, and all that are allowed."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (allowed: {', '.join(names)})"


def short(value: Any) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first_line(error: Exception) -> str:
    """What went wrong, without the library's further lines."""
    return getattr(error, "problem", None) or str(error).splitlines()[0]


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"there is no such preset{suggest(name, PRESETS)}")
    return name


Preset = Annotated[str, AfterValidator(_known_preset)]
