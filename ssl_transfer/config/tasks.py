"""``task``: what is learned. One section a kind; the further keys of a transfer are its loss's arguments."""

from typing import Annotated, Literal

from pydantic import Field

from ssl_transfer.config.fields import Count, NotNegative, Positive, Section
from ssl_transfer.config.model import Teacher
from ssl_transfer.losses.weights import WEIGHTS


class SimCLR(Section):
    """Contrast two views of an image with all others (Chen et al., ICML 2020)."""

    kind: Literal["simclr"]
    temperature: Positive = 0.5
    projection_dim: Count = 128
    hidden_dim: Count | None = None  # null: as wide as the features


class Transfer(Section):
    """What all ways of transfer share. Further keys have the names of the loss's arguments in ssl_transfer.losses."""

    teacher: Teacher


class RelaxedContrastive(Transfer):
    """Give the student the teacher's geometry by the relaxed contrastive loss (Kim et al., CVPR 2021)."""

    kind: Literal["relaxed_contrastive"]
    weight: Positive = WEIGHTS["relaxed_contrastive"]
    sigma: Positive = 1.0
    delta: Positive = 1.0
    affinity: Literal["gaussian", "contextual"] = "gaussian"
    neighbors: Count = 10  # of the contextual affinity


class RelaxedMultiSimilarity(Transfer):
    """The relaxed multi-similarity loss of the authors' code."""

    kind: Literal["relaxed_multi_similarity"]
    weight: Positive = WEIGHTS["relaxed_multi_similarity"]
    sigma: Positive = 1.0
    delta: Positive = 1.0
    alpha: Positive = 1.0
    beta: Positive = 2.0
    affinity: Literal["gaussian", "contextual"] = "gaussian"
    neighbors: Count = 10


class RKD(Transfer):
    """Relational knowledge distillation by distances and angles (Park et al., CVPR 2019)."""

    kind: Literal["rkd"]
    distance_weight: NotNegative = WEIGHTS["rkd_distance"]
    angle_weight: NotNegative = WEIGHTS["rkd_angle"]


class PKT(Transfer):
    """Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018)."""

    kind: Literal["pkt"]
    weight: Positive = WEIGHTS["pkt"]


class DarkRank(Transfer):
    """The teacher's ranking of neighbours, hard form (Chen et al., AAAI 2018)."""

    kind: Literal["dark_rank"]
    weight: Positive = WEIGHTS["dark_rank"]
    alpha: Positive = 3.0
    beta: Positive = 3.0
    length: Count = 4


class SimilarityPreserving(Transfer):
    """Similarity-preserving distillation (Tung and Mori, ICCV 2019)."""

    kind: Literal["similarity_preserving"]
    weight: Positive = WEIGHTS["similarity_preserving"]


class CorrelationCongruence(Transfer):
    """Correlation congruence (Peng et al., ICCV 2019)."""

    kind: Literal["correlation_congruence"]
    weight: Positive = WEIGHTS["correlation_congruence"]
    gamma: Positive = 0.4
    order: Count = 2


class SEED(Transfer):
    """Similarities to a queue of the teacher's embeddings (Fang et al., ICLR 2021)."""

    kind: Literal["seed"]
    weight: Positive = WEIGHTS["seed"]
    queue_size: Count = 65536
    student_temperature: Positive = 0.2
    teacher_temperature: Positive = 0.01


class FitNet(Transfer):
    """Regression of the teacher's feature maps (Romero et al., ICLR 2015)."""

    kind: Literal["fitnet"]
    weight: Positive = WEIGHTS["fitnet"]


class AttentionTransfer(Transfer):
    """The teacher's spatial attention (Zagoruyko and Komodakis, ICLR 2017)."""

    kind: Literal["attention_transfer"]
    weight: Positive = WEIGHTS["attention_transfer"]


class VID(Transfer):
    """Variational information distillation of feature maps (Ahn et al., CVPR 2019)."""

    kind: Literal["vid"]
    weight: Positive = WEIGHTS["vid"]


class CRD(Transfer):
    """Contrastive representation distillation, negatives from all images (Tian et al., ICLR 2020)."""

    kind: Literal["crd"]
    weight: Positive = WEIGHTS["contrastive_representation"]
    width: Count = 128
    negatives: Count = 4096
    temperature: Positive = 0.07
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5


class SoftTargets(Transfer):
    """Softened outputs, the teacher's embedding read as logits (Hinton et al., 2015)."""

    kind: Literal["soft_targets"]
    weight: Positive = WEIGHTS["soft_targets"]
    temperature: Positive = 4.0


Task = Annotated[
    SimCLR
    | RelaxedContrastive
    | RelaxedMultiSimilarity
    | RKD
    | PKT
    | DarkRank
    | SimilarityPreserving
    | CorrelationCongruence
    | SEED
    | FitNet
    | AttentionTransfer
    | VID
    | CRD
    | SoftTargets,
    Field(discriminator="kind"),
]
