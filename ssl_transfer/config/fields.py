"""What every part of a recipe is made of: strict sections, and the kinds of values they hold."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict

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
