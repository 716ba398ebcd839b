"""``model``: the network that is trained; and the teacher it may learn from."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ssl_transfer.config.fields import Color, Count, Section

if TYPE_CHECKING:
    from ssl_transfer.config.schema import Recipe


class Model(Section):
    """The network that is trained."""

    backbone: str
    stem: Literal["default", "cifar"] = "default"
    embedding_dim: Count | None = None  # width of a linear head; null: the backbone's pooled features themselves
    pretrained: bool = False
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mean: Color | None = None  # null: of the pretrained weights, else of the data set
    std: Color | None = None


class Teacher(Section):
    """Where the teacher comes from (one of three), and which of its outputs is transferred."""

    recipe: "Recipe | None" = None
    checkpoint: str | None = None
    timm: str | None = None
    output: Literal["features", "projection", "embedding"] = "features"

    @model_validator(mode="after")
    def _exactly_one(self) -> "Teacher":
        given = [key for key in ("recipe", "checkpoint", "timm") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of recipe, checkpoint, timm; given: {', '.join(given) or 'none'}")
        return self
