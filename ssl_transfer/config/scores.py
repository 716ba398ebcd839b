"""``score``: how a trained model is judged beside its teacher."""

from typing import Annotated, Literal

from pydantic import Field

from ssl_transfer.config.fields import Counts, Positive, Section


class KNN(Section):
    """Weighted cosine nearest neighbours (Wu et al., CVPR 2018)."""

    kind: Literal["knn"]
    k: Counts = (20, 200)
    temperature: Positive = 0.1


class LinearProbe(Section):
    """Multinomial logistic regression on standardised features."""

    kind: Literal["linear_probe"]


class FewShot(Section):
    """The same regression on a few labels per class, over several draws."""

    kind: Literal["few_shot"]
    labels_per_class: Counts = (1, 10)
    draws: Annotated[int, Field(ge=2)] = 10


Score = Annotated[KNN | LinearProbe | FewShot, Field(discriminator="kind")]
