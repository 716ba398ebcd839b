"""Transfer: a student learns from teachers. One section a loss, with its default weight and where that is from.

A weight is that of the authors: LabelRelaxation is tjddus9597/LabelRelaxation-CVPR21, RepDistiller is
HobbitLong/RepDistiller (``run_cifar_distill.sh``). ``beside_labels`` is what a loss and the cross entropy weigh with
``labels: true``: RepDistiller's, made for CIFAR-100 and SGD, where it has the loss; 1 where nothing is published.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ssl_transfer.section import BelowOne, Count, NotNegative, Positive, Temperature, TrueOrLeftOut, rule
from ssl_transfer.tasks.sections.base import TaskInputs, TaskSection
from ssl_transfer.teachers.section import Teacher, Teachers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_transfer.models import Frozen
    from ssl_transfer.tasks import transfer as modules

Neighbors = Annotated[int, Field(ge=2, lt=2**31)]


class Transfer(TaskSection):
    """What all ways of transfer share. Further keys have the names of the loss's arguments in ssl_transfer.losses.

    With ``labels`` the student has a classifier, which learns them by cross entropy. What is transferred are then the
    features or feature maps before it, and by soft targets the logits. Weights left out are those of ``beside_labels``.
    """

    beside_labels: ClassVar[dict[str, float]] = {"cross_entropy": 1.0, "weight": 1.0}
    output_beside_labels: ClassVar[Literal["features", "logits"]] = "features"  # of the student, which is compared
    compares_maps: ClassVar[bool] = False  # not embeddings
    takes_several: ClassVar[bool] = False  # teachers

    teacher: Teachers  # one, or a list of several
    labels: TrueOrLeftOut | None = None  # true: also learn the labels, by cross entropy
    cross_entropy: NotNegative | None = None  # its weight beside the transfer's

    @classmethod
    def completed(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """With the weights that are published beside labels, and the teacher's output that goes with them.

        A list of one teacher is that teacher.
        """
        teacher = raw.get("teacher")
        if isinstance(teacher, list) and len(teacher) == 1:
            raw = {**raw, "teacher": (teacher := teacher[0])}
        if raw.get("labels") is not True:
            return raw
        if cls.output_beside_labels == "logits" and isinstance(teacher, dict):
            raw = {**raw, "teacher": {"output": "logits", **teacher}}
        return {**cls.beside_labels, **raw}

    @rule
    def _labels_are_learned_by_cross_entropy(self) -> Iterator[str]:
        if self.cross_entropy is not None and self.labels is None:
            yield f"cross_entropy is {self.cross_entropy:g} but no labels are learned; add labels: true"

    @rule
    def _most_losses_learn_from_one_teacher(self) -> Iterator[str]:
        if len(self.teachers) > 1 and not self.takes_several:
            yield (
                f"{self.kind} is made for the width, maps or classes of one teacher, {len(self.teachers)} are given: "
                "name one, or take regression, or a loss of relations such as relaxed_contrastive, rkd and pkt"
            )

    @rule
    def _weights_are_of_several_teachers(self) -> Iterator[str]:
        if len(self.teachers) == 1 and self.teachers[0].weight is not None:
            yield "teacher.weight is that of one teacher beside others, and there is one: leave it out"

    @property
    def teachers(self) -> list[Teacher]:
        """All teachers, also where there is one."""
        return self.teacher if isinstance(self.teacher, list) else [self.teacher]

    @property
    def teacher_weights(self) -> list[float]:
        """Of each teacher, before they are divided by their sum."""
        return [1.0 if teacher.weight is None else teacher.weight for teacher in self.teachers]

    @property
    def classifies(self) -> bool:
        """With ``labels``."""
        return self.labels is not None

    def build(self, inputs: TaskInputs) -> "nn.Module":
        """The transfer, beside cross entropy where labels are learned."""
        from ssl_transfer.tasks.classify import LabeledTransfer

        transfer = self.transfer(inputs)
        return transfer if self.cross_entropy is None else LabeledTransfer(transfer, weight=self.cross_entropy)

    def transfer(self, inputs: TaskInputs) -> "modules.Transfer":
        """The comparison of student and teacher."""
        raise NotImplementedError

    def student(self, inputs: TaskInputs) -> "tuple[nn.Module, int]":
        """What of the model is compared with the teacher, and its width: features or logits where it learns labels."""
        from ssl_transfer.models import WithLogits

        model = inputs.model
        if not self.labels:
            return model, model.embedding_dim
        compared = self.output_beside_labels
        return WithLogits(model, compared), model.width_of(compared)

    def taught(self, inputs: TaskInputs) -> "list[tuple[Frozen, int]]":
        """The output of each teacher that is transferred, and its width."""
        from ssl_transfer.models import Frozen, Output

        return [
            (Frozen(Output(model, teacher.output)), model.width_of(teacher.output))
            for model, teacher in zip(inputs.teachers, self.teachers, strict=True)
        ]


class FromSeveral(Transfer):
    """Transfer of relations among images, which teachers of any widths have: from one of them, or from several.

    Of several the losses are averaged. For the relaxed contrastive loss this is the loss of the averaged affinities, in
    which it is linear; docs/teachers.md tells of the others.
    """

    takes_several = True

    teacher_dropout: Annotated[float, Field(gt=0, lt=1)] | None = None  # probability to leave out a teacher in a step

    @rule
    def _some_of_several_teachers_are_left_out(self) -> Iterator[str]:
        if len(self.teachers) == 1 and self.teacher_dropout is not None:
            yield "teacher_dropout leaves out some of several teachers, and there is one: leave it out"

    def relational(self, inputs: TaskInputs, loss: "Callable[..., Tensor]", **settings: Any) -> "modules.Transfer":
        """``loss`` from all teachers, by :class:`ssl_transfer.tasks.transfer.RelationalTransfer` with ``settings``."""
        from ssl_transfer.tasks.transfer import RelationalTransfer

        return RelationalTransfer(
            self.student(inputs)[0],
            [frozen for frozen, _ in self.taught(inputs)],
            loss,
            teacher_weights=self.teacher_weights,
            teacher_dropout=self.teacher_dropout or 0.0,
            seed=inputs.seed,
            micro_batch_size=inputs.micro_batch_size,
            **settings,
        )


class Relational(FromSeveral):
    """Transfer by a function of both embeddings: ``ssl_transfer.losses.<kind>``, with the section's own keys."""

    needs_images: ClassVar[bool] = False  # whether the loss asks which rows show the same image

    def transfer(self, inputs: TaskInputs) -> "modules.Transfer":
        """The loss of the section's kind."""
        from ssl_transfer import losses

        arguments = self.model_dump(exclude=set(FromSeveral.model_fields))
        weight = arguments.pop("weight")
        loss = partial(getattr(losses, self.kind), **arguments)
        return self.relational(inputs, loss, weight=weight, tell_images=self.needs_images)


class Relaxed(Relational):
    """What the relaxed losses share (Kim et al., CVPR 2021): the teacher's affinity of a pair stands for its label."""

    needs_images = True

    weight: Positive = 1.0  # LabelRelaxation: the only loss
    sigma: Positive | None = None  # the width of a Gaussian affinity, 1 in the paper
    delta: Positive = 1.0  # relative distance up to which pairs that are not alike are pushed apart
    affinity: Literal["standardized", "gaussian", "contextual"] = "standardized"  # docs/losses.md; the paper: gaussian
    neighbors: Neighbors = 10  # of the contextual affinity

    @rule
    def _sigma_is_the_width_of_a_gaussian(self) -> Iterator[str]:
        if self.affinity == "gaussian" and self.sigma is None:
            yield "affinity gaussian needs sigma, its width: the paper has sigma: 1.0"
        if self.affinity == "standardized" and self.sigma is not None:
            yield (
                f"sigma is {self.sigma:g}, the width of a Gaussian, but affinity is standardized: "
                "add affinity: gaussian, or leave sigma out"
            )

    @property
    def rows_needed(self) -> int:
        """The contextual affinity looks for neighbors in the batch."""
        return self.neighbors if self.affinity == "contextual" else super().rows_needed


class RelaxedContrastive(Relaxed):
    """Give the student the teacher's geometry by the relaxed contrastive loss (Kim et al., CVPR 2021)."""

    # Beside labels it is not published; recipes/README.md, "Labels beside a teacher", says how 1 was looked for.
    kind: Literal["relaxed_contrastive"]


class RelaxedMultiSimilarity(Relaxed):
    """The relaxed multi-similarity loss of the authors' code."""

    kind: Literal["relaxed_multi_similarity"]
    alpha: Positive = 1.0  # sharpness of the pull, by which distances are multiplied
    beta: Positive = 2.0  # sharpness of the push, likewise


class PKT(Relational):
    """Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018)."""

    beside_labels = {"cross_entropy": 1.0, "weight": 30000.0}

    kind: Literal["pkt"]
    weight: Positive = 1.0  # LabelRelaxation, under Adam; RepDistiller 30,000: a mean over n^2 entries is tiny


class DarkRank(Relational):
    """The teacher's ranking of neighbors, hard form (Chen et al., AAAI 2018)."""

    kind: Literal["dark_rank"]
    weight: Positive = 1.0  # LabelRelaxation
    alpha: Positive = 3.0  # by which powers of distances are multiplied
    beta: Annotated[Positive, Field(ge=1)] = 3.0  # below 1 the gradient is infinite at a distance of zero
    length: Count = 4  # nearest neighbors whose order is learned

    @property
    def rows_needed(self) -> int:
        """An image and its ranked neighbors."""
        return self.length + 1


class SimilarityPreserving(Relational):
    """Similarity-preserving distillation (Tung and Mori, ICCV 2019)."""

    beside_labels = {"cross_entropy": 1.0, "weight": 3000.0}  # theirs is on the last map, not the features

    kind: Literal["similarity_preserving"]
    weight: Positive = 3000.0  # RepDistiller


class CorrelationCongruence(Relational):
    """Correlation congruence (Peng et al., ICCV 2019)."""

    beside_labels = {"cross_entropy": 1.0, "weight": 0.02}

    kind: Literal["correlation_congruence"]
    weight: Positive = 0.02  # RepDistiller, whose form differs from the paper's
    gamma: Annotated[Positive, Field(le=20)] = 0.4  # beyond, only equal rows would be alike
    order: Annotated[int, Field(ge=1, le=20)] = 2  # of the series that stands for the Gaussian kernel


class RKD(FromSeveral):
    """Relational knowledge distillation by distances and angles (Park et al., CVPR 2019)."""

    beside_labels = {"cross_entropy": 1.0, "distance_weight": 25.0, "angle_weight": 50.0}

    kind: Literal["rkd"]
    distance_weight: NotNegative = 1.0  # LabelRelaxation; RepDistiller 25
    angle_weight: NotNegative = 2.0  # LabelRelaxation; RepDistiller 50

    def transfer(self, inputs: TaskInputs) -> "modules.Transfer":
        """Both terms."""
        from ssl_transfer.losses.relational.rkd import rkd

        loss = partial(rkd, distance_weight=self.distance_weight, angle_weight=self.angle_weight)
        return self.relational(inputs, loss)


class Regression(Transfer):
    """The teacher's coordinates, each in units of its spread over the batch, through a layer that is thrown away.

    Of several teachers each has a layer of its own, and their losses are averaged.
    """

    takes_several = True

    kind: Literal["regression"]
    weight: Positive = 1.0  # the only loss; Adam sees no scale

    def transfer(self, inputs: TaskInputs) -> "modules.Transfer":
        """See :class:`ssl_transfer.tasks.transfer.Regression`."""
        from torch import nn

        from ssl_transfer.tasks import transfer as modules

        (student, student_width), taught = self.student(inputs), self.taught(inputs)
        return modules.Regression(
            student,
            [frozen for frozen, _ in taught],
            # Also where the widths are equal: features are not standardized, and behind a ReLU not even negative.
            [nn.Linear(student_width, width) for _, width in taught],
            weight=self.weight,
            teacher_weights=self.teacher_weights,
            micro_batch_size=inputs.micro_batch_size,
        )


class SEED(Transfer):
    """Similarities to a queue of the teacher's embeddings (Fang et al., ICLR 2021)."""

    kind: Literal["seed"]
    weight: Positive = 1.0  # the only loss of SEED
    queue_size: Count = 65536  # embeddings of the teacher from earlier steps
    student_temperature: Temperature = 0.2  # the student's cosines are divided by it
    teacher_temperature: Temperature = 0.01  # likewise

    def transfer(self, inputs: TaskInputs) -> "modules.Transfer":
        """See :class:`ssl_transfer.tasks.transfer.SEED`."""
        from ssl_transfer.tasks import transfer as modules

        (student, student_width), [(taught, width)] = self.student(inputs), self.taught(inputs)
        return modules.SEED(
            student,
            taught,
            modules.adapter(student_width, width),
            teacher_width=width,
            queue_size=self.queue_size,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            weight=self.weight,
            micro_batch_size=inputs.micro_batch_size,
        )


class CRD(Transfer):
    """Contrastive representation distillation, negatives from all images (Tian et al., ICLR 2020)."""

    beside_labels = {"cross_entropy": 1.0, "weight": 0.8}

    kind: Literal["crd"]
    weight: Positive = 1.0  # LabelRelaxation; RepDistiller 0.8
    width: Count = 128  # of the embeddings that are compared
    negatives: Count = 4096  # images of the whole data set that each is told from
    temperature: Temperature = 0.07  # products of embeddings are divided by it
    momentum: BelowOne = 0.5  # share that a remembered embedding keeps when its image is seen again

    def transfer(self, inputs: TaskInputs) -> "modules.Transfer":
        """See :class:`ssl_transfer.tasks.transfer.CRD`."""
        from ssl_transfer.losses import ContrastiveRepresentation
        from ssl_transfer.tasks import transfer as modules

        (student, student_width), [(taught, width)] = self.student(inputs), self.taught(inputs)
        loss = ContrastiveRepresentation(
            student_width,
            width,
            len(inputs.images),
            width=self.width,
            temperature=self.temperature,
            momentum=self.momentum,
        )
        return modules.CRD(
            student,
            taught,
            loss,
            dataset_size=len(inputs.images),
            negatives=self.negatives,
            seed=inputs.seed,
            weight=self.weight,
            micro_batch_size=inputs.micro_batch_size,
        )


class SoftTargets(Transfer):
    """Softened outputs, the teacher's embedding read as logits (Hinton et al., 2015)."""

    beside_labels = {"cross_entropy": 0.1, "weight": 0.9}
    output_beside_labels = "logits"

    kind: Literal["soft_targets"]
    weight: Positive = 0.9  # RepDistiller, beside 0.1 of cross entropy
    temperature: Temperature = 4.0  # logits are divided by it

    def transfer(self, inputs: TaskInputs) -> "modules.Transfer":
        """See :class:`ssl_transfer.tasks.transfer.SoftTargets`."""
        from ssl_transfer.tasks import transfer as modules

        (student, student_width), [(taught, width)] = self.student(inputs), self.taught(inputs)
        return modules.SoftTargets(
            student,
            taught,
            modules.adapter(student_width, width),
            temperature=self.temperature,
            weight=self.weight,
            micro_batch_size=inputs.micro_batch_size,
        )


class FeatureMapTransfer(Transfer):
    """Transfer of feature maps, by one loss for each pair of maps."""

    compares_maps = True

    weight: Positive

    def transfer(self, inputs: TaskInputs) -> "modules.Transfer":
        """See :class:`ssl_transfer.tasks.feature_maps.FeatureMapTransfer`."""
        from ssl_transfer.tasks.feature_maps import transfer_of_maps

        (teacher,) = inputs.teachers
        return transfer_of_maps(inputs.model, teacher, inputs.images, self.map_loss, weight=self.weight)

    def map_loss(self, student_channels: int, teacher_channels: int) -> Any:
        """The loss of a pair of maps, which have these numbers of channels."""
        raise NotImplementedError


class FitNet(FeatureMapTransfer):
    """Regression of the teacher's feature maps (Romero et al., ICLR 2015)."""

    beside_labels = {"cross_entropy": 1.0, "weight": 100.0}

    kind: Literal["fitnet"]
    weight: Positive = 1.0  # LabelRelaxation, per map; RepDistiller 100 on one map

    def map_loss(self, student_channels: int, teacher_channels: int) -> "nn.Module":
        """See :class:`ssl_transfer.losses.FitNet`."""
        from ssl_transfer import losses

        return losses.FitNet(student_channels, teacher_channels)


class AttentionTransfer(FeatureMapTransfer):
    """The teacher's spatial attention (Zagoruyko and Komodakis, ICLR 2017)."""

    beside_labels = {"cross_entropy": 1.0, "weight": 1000.0}

    kind: Literal["attention_transfer"]
    weight: Positive = 1.0  # LabelRelaxation, per map; RepDistiller 1,000

    def map_loss(self, student_channels: int, teacher_channels: int) -> Any:
        """See :func:`ssl_transfer.losses.attention_transfer`, which takes maps of any channels."""
        from ssl_transfer import losses

        return losses.attention_transfer


class VID(FeatureMapTransfer):
    """Variational information distillation of feature maps (Ahn et al., CVPR 2019)."""

    kind: Literal["vid"]
    weight: Positive = 1.0  # RepDistiller, per map

    def map_loss(self, student_channels: int, teacher_channels: int) -> "nn.Module":
        """See :class:`ssl_transfer.losses.VID`."""
        from ssl_transfer import losses

        return losses.VID(student_channels, teacher_channels)


TransferTask = (
    RelaxedContrastive
    | RelaxedMultiSimilarity
    | RKD
    | PKT
    | DarkRank
    | SimilarityPreserving
    | CorrelationCongruence
    | Regression
    | SEED
    | FitNet
    | AttentionTransfer
    | VID
    | CRD
    | SoftTargets
)
