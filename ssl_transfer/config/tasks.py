"""``task``: what is learned. One section a kind; the further keys of a transfer are its loss's arguments."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ssl_transfer.config.fields import Count, NotNegative, Positive, Probability, Section
from ssl_transfer.config.messages import suggest
from ssl_transfer.config.model import Teacher
from ssl_transfer.losses.labels import ARGUMENTS
from ssl_transfer.losses.weights import WEIGHTS, WITH_LABELS


class Pretraining(Section):
    """What all ways of making a teacher share: two views of an image, a projection on the features."""

    projection_dim: Count = 128
    hidden_dim: Count | None = None  # null: as wide as the features


class SimCLR(Pretraining):
    """Contrast two views of an image with all others (Chen et al., ICML 2020)."""

    kind: Literal["simclr"]
    temperature: Positive = 0.5


class MoCo(Pretraining):
    """Contrast a view with the other one and a queue of earlier images (He et al., CVPR 2020; Chen et al., 2020).

    Version 1 is ``head: linear, temperature: 0.07`` with ``augment: moco_v1``; version 2 the defaults and ``moco_v2``.
    """

    kind: Literal["moco"]
    head: Literal["linear", "mlp"] = "mlp"
    temperature: Positive = 0.2
    queue_size: Count = 65536
    momentum: Probability = 0.999
    final_momentum: Probability | None = None  # reached by half a cosine; null: constant
    symmetric: bool = False  # each view asks for the other, as small data sets like it; the papers: the first asks


class MoCoV3(Pretraining):
    """Contrast predictions of a view with the other view of all images of the batch (Chen, Xie and He, ICCV 2021)."""

    kind: Literal["moco_v3"]
    temperature: Positive = 1.0
    momentum: Probability = 0.99
    final_momentum: Probability | None = 1.0  # reached by half a cosine; null: constant
    projection_dim: Count = 256
    hidden_dim: Count = 4096  # of projection and predictor
    projection_layers: Annotated[int, Field(ge=2)] = 2  # 3 for a vision transformer


class Metric(Section):
    """Learn from labels an embedding in which a class lies together, by a loss of pytorch-metric-learning."""

    kind: Literal["metric"]
    loss: Literal["proxy_anchor", "multi_similarity", "contrastive", "triplet", "normalized_softmax"] = "proxy_anchor"
    settings: dict[str, float] = {}  # of the loss; what is left out is filled in from losses/labels.py
    proxy_lr_scale: Positive = 100.0  # of the loss's proxies, if it has any, to optim.lr
    freeze_batch_norm: bool = False  # keep the statistics of the pretrained weights

    @model_validator(mode="before")
    @classmethod
    def _complete_settings(cls, raw: Any) -> Any:
        arguments = ARGUMENTS.get(raw.get("loss", "proxy_anchor"))
        given = raw.get("settings", {})
        if arguments is None or not isinstance(given, dict):  # told in the field's own words
            return raw
        for name in given.keys() - arguments.keys():
            raise ValueError(f"settings has no key {name!r}{suggest(name, arguments)}")
        return {**raw, "settings": arguments | given}


class Classify(Section):
    """Learn labels by cross entropy."""

    kind: Literal["classify"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: NotNegative = 0.0  # a of Beta(a, a), the share of an image in its mixture with another; 0: off
    cutmix: NotNegative = 0.0  # the same for a pasted box; where both are on, each is taken half of the time


class Transfer(Section):
    """What all ways of transfer share. Further keys have the names of the loss's arguments in ssl_transfer.losses.

    With ``labels`` the student has a classifier, which learns them by cross entropy. What is transferred are then the
    features or feature maps before it, and by soft targets the logits. Weights left out are those of ``WITH_LABELS``.
    """

    teacher: Teacher
    labels: Literal[True] | None = None
    cross_entropy: NotNegative | None = None  # its weight beside the transfer's

    @model_validator(mode="before")
    @classmethod
    def _complete_weights(cls, raw: Any) -> Any:
        kind, teacher = raw.get("kind"), raw.get("teacher")
        if raw.get("labels") is not True or kind not in WITH_LABELS:
            return raw
        if kind == "soft_targets" and isinstance(teacher, dict):
            raw = {**raw, "teacher": {"output": "logits", **teacher}}
        return {**WITH_LABELS[kind], **raw}

    @model_validator(mode="after")
    def _labels_are_learned_by_cross_entropy(self) -> "Transfer":
        if self.cross_entropy is not None and self.labels is None:
            raise ValueError(f"cross_entropy is {self.cross_entropy:g} but no labels are learned; add labels: true")
        return self


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
    """The teacher's ranking of neighbors, hard form (Chen et al., AAAI 2018)."""

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
    | MoCo
    | MoCoV3
    | Metric
    | Classify
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
