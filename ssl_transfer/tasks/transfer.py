"""Embedding transfer: a student learns from a frozen teacher on unlabeled images.

Teacher and student are fed the same views, each through its own preprocessing. Losses that compare rows with each
other see the rows of all processes; each process computes the terms of its own rows.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ssl_transfer.data import Batch, counter
from ssl_transfer.distributed import gather_rows, own_rows, single_process_order, sum_over_processes, world_size
from ssl_transfer.losses import ContrastiveRepresentation, regression, seed, soft_targets
from ssl_transfer.losses.precision import widen
from ssl_transfer.models import Frozen
from ssl_transfer.tasks.embed import embed
from ssl_transfer.tasks.queue import pushed


class Transfer(nn.Module):
    """``model`` learns from ``teachers``, of which most kinds have one: what all kinds of transfer share."""

    model: nn.Module
    teachers: nn.ModuleList  # of Frozen
    micro_batch_size: int | None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compare student and teacher on all views of ``batch``."""
        images = torch.cat(batch.views)
        student = embed(self.model, images, self.micro_batch_size, views=len(batch.views))
        return {"loss": self.compare(student, images, batch)}

    def compare(self, student: Tensor, images: Tensor, batch: Batch) -> Tensor:
        """This process's share of the weighted loss; ``student`` is what the student makes of ``images``."""
        raise NotImplementedError

    def taught(self, images: Tensor, batch: Batch, teacher: int = 0) -> Tensor:
        """A teacher's embeddings of ``images``: those that ``batch`` brings with it, or else computed."""
        remembered = None if batch.remembered is None else batch.remembered[teacher]
        return self.teachers[teacher](images) if remembered is None else remembered

    def let_go(self, teachers: Iterable[int]) -> None:
        """Hold these teachers no longer: every batch will bring their embeddings."""
        for teacher in teachers:
            self.teachers[teacher] = nn.Module()  # which raises if it is asked


class RelationalTransfer(Transfer):
    """Train ``model`` by a loss over the rows of the global batch: ``loss(student, teacher, anchors=...)``.

    With several teachers it is the mean of their losses, weighted by ``teacher_weights``. In each
    step a teacher is left out with probability ``teacher_dropout``, a function of the ``seed`` and the step; one always
    stays, and the mean is over those that do. With ``tell_images`` the loss is also told which rows show the same
    image, as ``image=...``.
    """

    def __init__(
        self,
        model: nn.Module,
        teachers: Sequence[Frozen],
        loss: Callable[..., Tensor],
        *,
        weight: float = 1.0,
        teacher_weights: Sequence[float],
        teacher_dropout: float,
        seed: int,
        tell_images: bool = False,
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        self.model, self.teachers = model, nn.ModuleList(teachers)
        self.loss, self.weight, self.tell_images = loss, weight, tell_images
        self.teacher_weights = list(teacher_weights)
        self.teacher_dropout, self.seed = teacher_dropout, seed
        self.micro_batch_size = micro_batch_size

    def compare(self, student: Tensor, images: Tensor, batch: Batch) -> Tensor:
        """The loss of this process's rows among those of all."""
        student = _gathered(student)
        told = {"image": gather_rows(_image_of_each_row(batch))} if self.tell_images else {}
        losses = [
            share
            * self.loss(student, _gathered(self.taught(images, batch, teacher)), anchors=own_rows(len(images)), **told)
            for teacher, share in self.shares(batch.step).items()
        ]
        return self.weight * torch.stack(losses).sum()

    def shares(self, step: int) -> dict[int, float]:
        """The teachers that are asked in a step, each with its share of the loss; the shares sum to one."""
        weights = dict(enumerate(self.teacher_weights))
        if self.teacher_dropout:
            draws = counter.uniform(self.seed, counter.TEACHERS, step, torch.arange(len(weights)), 0, 1)[:, 0]
            stays = (draws >= self.teacher_dropout) | (draws == draws.max())  # the luckiest one at least
            weights = {teacher: weight for teacher, weight in weights.items() if stays[teacher]}
        return {teacher: weight / sum(weights.values()) for teacher, weight in weights.items()}

    def teacher_loss(self, batch: Batch) -> Tensor:
        """This process's share of the loss that a student would have which embeds as the teacher does."""
        images = torch.cat(batch.views)
        return self.compare(self.taught(images, batch), images, batch)


class Regression(Transfer):
    """Train ``model`` to tell the teachers' standardized coordinates, of each through a layer that is thrown away.

    With several teachers the loss is the mean of their losses, weighted by ``teacher_weights``.
    """

    def __init__(
        self,
        model: nn.Module,
        teachers: Sequence[Frozen],
        layers: Sequence[nn.Module],
        *,
        weight: float,
        teacher_weights: Sequence[float],
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        self.model, self.teachers, self.layers = model, nn.ModuleList(teachers), nn.ModuleList(layers)
        self.weight, self.micro_batch_size = weight, micro_batch_size
        self.shares = [each / sum(teacher_weights) for each in teacher_weights]

    def compare(self, student: Tensor, images: Tensor, batch: Batch) -> Tensor:
        """The loss of this process's rows, of coordinates that are standardized over the rows of all."""
        losses = [
            share
            * regression(
                _gathered(layer(student)),
                _gathered(self.taught(images, batch, teacher)),
                anchors=own_rows(len(images)),
            )
            for teacher, (layer, share) in enumerate(zip(self.layers, self.shares, strict=True))
        ]
        return self.weight * torch.stack(losses).sum()


class SEED(Transfer):
    """Train ``model`` to find the teacher's rows of earlier steps as similar as the teacher does (Fang et al., 2021).

    The queue holds the teacher's embeddings of the last ``queue_size`` views over all processes, the same on each; it
    starts as random directions and is part of the checkpoint. ``adapter`` brings the student to the teacher's width.
    """

    queue: Tensor

    def __init__(
        self,
        model: nn.Module,
        teacher: Frozen,
        adapter: nn.Module,
        *,
        teacher_width: int,
        queue_size: int,
        student_temperature: float,
        teacher_temperature: float,
        weight: float,
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        self.model, self.teachers, self.adapter = model, nn.ModuleList([teacher]), adapter
        self.temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
        self.weight, self.micro_batch_size = weight, micro_batch_size
        self.register_buffer("queue", torch.randn(queue_size, teacher_width))

    def compare(self, student: Tensor, images: Tensor, batch: Batch) -> Tensor:
        """Compare similarities to the queue, then push the teacher's rows into it."""
        student, teacher = _gathered(self.adapter(student)), _gathered(self.taught(images, batch))
        loss = seed(student, teacher, self.queue, **self.temperatures, anchors=own_rows(len(images)))
        self.queue = pushed(self.queue, teacher, len(batch.views))
        return self.weight * loss


class CRD(Transfer):
    """Train ``model`` by contrasting its features with memories of the teacher's, and back (Tian et al., ICLR 2020).

    Negatives are drawn from all images of the data set, a function of the seed and the step. The memories are the same
    on every process and part of the checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: Frozen,
        loss: ContrastiveRepresentation,
        *,
        dataset_size: int,
        negatives: int,
        seed: int,
        weight: float,
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        self.model, self.teachers, self.loss = model, nn.ModuleList([teacher]), loss
        self.dataset_size, self.negatives, self.seed, self.weight = dataset_size, negatives, seed, weight
        self.micro_batch_size = micro_batch_size

    def compare(self, student: Tensor, images: Tensor, batch: Batch) -> Tensor:
        """Contrast the features of ``batch`` with both memories, then update them."""
        student, teacher = _gathered(student), _gathered(self.taught(images, batch))
        image = gather_rows(_image_of_each_row(batch))
        own = own_rows(len(images))
        row = single_process_order(len(student), len(batch.views), student.device)[own]
        where = self.seed, counter.NEGATIVES, batch.step
        negatives = counter.integers(*where, row, self.negatives, below=self.dataset_size)
        loss = self.loss(student, teacher, image, negatives, anchors=own, add_up=sum_over_processes)
        return self.weight * loss


class SoftTargets(Transfer):
    """Train ``model`` on the teacher's softened outputs, its embedding read as logits (Hinton et al., 2015).

    ``adapter`` brings the student to the teacher's width.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: Frozen,
        adapter: nn.Module,
        *,
        temperature: float,
        weight: float,
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        self.model, self.teachers, self.adapter = model, nn.ModuleList([teacher]), adapter
        self.temperature, self.weight, self.micro_batch_size = temperature, weight, micro_batch_size

    def compare(self, student: Tensor, images: Tensor, batch: Batch) -> Tensor:
        """Compare the softened outputs of this process's rows."""
        student, teacher = self.adapter(student), self.taught(images, batch)
        rows = world_size() * len(images)
        return self.weight * soft_targets(student, teacher, temperature=self.temperature, rows=rows)


def adapter(student_width: int, width: int) -> nn.Module:
    """What brings the student to the teacher's width: trained with it and thrown away."""
    return nn.Identity() if student_width == width else nn.Linear(student_width, width)


def _gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, widened before: the gather's backward adds up what all of them found for a row."""
    return gather_rows(widen(rows))


def _image_of_each_row(batch: Batch) -> Tensor:
    return batch.index.repeat(len(batch.views))
