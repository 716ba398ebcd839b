"""Contrastive representation distillation (CRD; Tian et al., ICLR 2020), with its memory of the whole data set."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_transfer.losses.checks import check_pair, check_positive
from ssl_transfer.losses.precision import full_precision, unit_rows
from ssl_transfer.losses.tiles import anchor_range, sum_over_anchors, tile_rows

EPSILON = 1e-7


class ContrastiveRepresentation(nn.Module):
    """Recognize the teacher's embedding of an image among those of other images, by the student's, and the reverse.

    CRD (Tian et al., ICLR 2020). Embeddings z are linear in the features and have length one; both are trained. The
    memories M^t and M^s hold one embedding for each of the N images of the data set. With K negatives and
    p(z, m) = exp(z . m / T) / Z, for a row i that shows image y:

        h(p) = p / (p + K/N)
        L = -(1/n) sum_i [ log h(p(z^s_i, M^t_y)) + sum_k log(1 - h(p(z^s_i, M^t_k))) ]
            - the same with s and t exchanged

    Z is set in the first call, to N times the mean of exp(z . m / T), and kept. After the loss is computed, the memory
    of every image in the batch becomes normalize(momentum M_y + (1 - momentum) z), where z is the mean over the views
    of the image.

    Args:
        student_width: the student's number of features.
        teacher_width: the teacher's number of features.
        size: N, the number of images in the data set.
        width: of the embeddings.
        temperature: T.
        momentum: the share of the old embedding that a memory keeps.
        generator: draws the first memories; torch's own if None.

    Raises:
        ValueError: ``size``, ``width`` or ``temperature`` is not positive.
    """

    memory_student: Tensor
    memory_teacher: Tensor
    normalizer: Tensor

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        size: int,
        *,
        width: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_positive(size=size, width=width, temperature=temperature)
        self.temperature, self.momentum = temperature, momentum
        self.embed_student = nn.Linear(student_width, width)
        self.embed_teacher = nn.Linear(teacher_width, width)
        bound = 1 / math.sqrt(width / 3)
        for name in ("memory_student", "memory_teacher"):
            start = torch.empty(size, width).uniform_(-bound, bound, generator=generator)
            self.register_buffer(name, start)
        self.register_buffer("normalizer", torch.zeros(2))  # of scores by student rows and by teacher rows; 0 is unset
        self._has_normalizer = False  # as far as it is known without asking the device
        self.register_load_state_dict_post_hook(_ask_again)

    def forward(
        self,
        student: Float[Tensor, "n d_student"],
        teacher: Float[Tensor, "n d_teacher"],
        image: Int[Tensor, " n"],
        negatives: Int[Tensor, "a k"],
        *,
        anchors: slice | None = None,
        add_up: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of the anchors; afterwards the memories are updated with all rows.

        Rows are those of the global batch. ``image`` is the place of each row's image in the data set. ``anchors`` are
        the rows whose terms this process computes, by default all, and ``negatives`` the places that each of them is
        contrasted with, drawn uniformly from all places. ``add_up`` sums a tensor over the processes, for Z in the
        first call. So the memories stay equal on all processes, and the sum over processes is the loss of the batch.

        Raises:
            ValueError: student and teacher have different rows, or rows that are not finite; ``anchors`` is no
                contiguous part of the batch; there are not as many rows of ``negatives``; or the first call
                lacks ``add_up`` where other processes have the other anchors.
        """
        check_pair(student, teacher)
        own = anchor_range(anchors, len(student))
        if len(negatives) != len(own):
            raise ValueError(f"negatives has {len(negatives)} rows: give one for each of the {len(own)} anchors.")
        with full_precision(student.device):
            ours = unit_rows(self.embed_student(student.to(self.embed_student.weight.dtype)))
            theirs = unit_rows(self.embed_teacher(teacher.detach().to(self.embed_teacher.weight.dtype)))
        drawn = torch.cat([image[own.start : own.stop, None], negatives], dim=1)

        def places(rows: slice) -> Tensor:
            return drawn[rows.start - own.start : rows.stop - own.start]

        tile = max(1, tile_rows(drawn.shape[1], student.device) // ours.shape[1])
        if not self._has_normalizer:
            if not self.normalizer.all():
                if len(own) < len(student) and add_up is None:
                    raise ValueError(
                        f"anchors={anchors} are a part of {len(student)} rows: give add_up, a sum over processes."
                    )
                sums = self._sums_of_scores(ours.detach(), theirs.detach(), places, anchors, tile)
                sums = sums if add_up is None else add_up(sums)
                self.normalizer.copy_(sums / (len(student) * drawn.shape[1]) * len(self.memory_student))
            self._has_normalizer = True
        # The walk copies nothing of the memories but their rows for one tile; they change in place only after
        # it.
        n, size = len(student), len(self.memory_student)
        noise = negatives.shape[1] / size

        def term(rows: slice, ours: Tensor, theirs: Tensor) -> Tensor:
            total = ours.new_zeros(())
            for scores, normalizer in zip(self._scores(rows, ours, theirs, places(rows)), self.normalizer, strict=True):
                p = scores / normalizer
                positive = (p[:, 0] / (p[:, 0] + noise + EPSILON)).log().sum()
                negative = (noise / (p[:, 1:] + noise + EPSILON)).log().sum()
                total = total - positive - negative
            return total

        loss = sum_over_anchors(term, anchors, n, ours, theirs, tile=tile) / n
        self._update(ours.detach(), theirs.detach(), image)
        return loss

    def _scores(self, rows: slice, ours: Tensor, theirs: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """exp(z . m / T) of the rows against their places: students by teacher memory, teachers by student memory."""
        by_student = torch.einsum("tkd,td->tk", self.memory_teacher[places], ours[rows])
        by_teacher = torch.einsum("tkd,td->tk", self.memory_student[places], theirs[rows])
        return (by_student / self.temperature).exp(), (by_teacher / self.temperature).exp()

    def _sums_of_scores(
        self, ours: Tensor, theirs: Tensor, places: Callable[[slice], Tensor], anchors: slice | None, tile: int
    ) -> Float[Tensor, "2"]:
        def term(side: int) -> Callable[..., Tensor]:
            return lambda rows, *_: self._scores(rows, ours, theirs, places(rows))[side].sum()

        return torch.stack([sum_over_anchors(term(side), anchors, len(ours), ours, tile=tile) for side in (0, 1)])

    @torch.no_grad()
    def _update(self, ours: Tensor, theirs: Tensor, image: Tensor) -> None:
        """Every row writes the new memory of its image: equal ones, where several rows show one."""
        ordered, order = image.sort(stable=True)
        starts = torch.ones_like(ordered)
        starts[1:] = ordered[1:] != ordered[:-1]
        group = torch.empty_like(order).scatter_(0, order, starts.cumsum(0) - 1)
        views = ours.new_zeros(len(image), 1).index_add_(0, group, ours.new_ones(len(image), 1))
        for memory, rows in ((self.memory_student, ours), (self.memory_teacher, theirs)):
            mean = (torch.zeros_like(rows).index_add_(0, group, rows) / views)[group]
            memory[image] = unit_rows(self.momentum * memory[image] + (1 - self.momentum) * mean)


def _ask_again(loss: ContrastiveRepresentation, _: object) -> None:
    loss._has_normalizer = False
