"""``model``: the network that is trained; and the teacher it may learn from."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ssl_transfer.section import Color, Count, Section

if TYPE_CHECKING:
    pass


class Model(Section):
    """The network that is trained."""

    backbone: str
    stem: Literal["default", "cifar"] = "default"
    pooling: Literal["avg", "max", "avgmax"] | None = None  # avgmax: the mean of both; null: the backbone's own
    embedding_dim: Count | None = None  # width of a linear head; null: the backbone's pooled features themselves
    pretrained: bool = False
    freeze: Annotated[int, Field(ge=0)] | None = None  # keep the stem and the first N stages; null: train everything
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mean: Color | None = None  # null: of the pretrained weights, else of the data set
    std: Color | None = None

    @model_validator(mode="after")
    def _freezes_weights_worth_keeping(self) -> "Model":
        if self.freeze is not None and not self.pretrained:
            raise ValueError("freeze keeps the weights that training starts from: set pretrained: true as well")
        if self.freeze is not None and self.stem == "cifar":
            raise ValueError("freeze includes the stem, and stem: cifar makes a new one: use stem: default")
        return self
