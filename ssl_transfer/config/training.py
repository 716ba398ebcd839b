"""``optim`` and ``train``: the optimizer, and how long, how precisely and where it runs."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ssl_transfer.section import (
    BelowOne,
    Count,
    Counts,
    Location,
    NotNegative,
    Positive,
    Section,
    TrueOrLeftOut,
    rule,
)


class Lars(Section):
    """How LARS adapts the rate of a weight: ``trust_coefficient * |weight| / |gradient|``, times the learning rate."""

    trust_coefficient: Positive = 0.001  # see above
    trust_clip: bool = False  # true: the adapted rate is at most the learning rate, and not multiplied by it (LARC)


class Optim(Section):
    """The optimizer, and its learning rate as a function of the step."""

    name: Literal["sgd", "adamw", "lars"]  # sgd as torch's, with plain momentum
    lr: Positive  # the highest learning rate, which is that of the whole batch: nothing scales it by batch_size
    weight_decay: NotNegative = 0.0  # not of biases and of the weights of norms, see decay_all
    momentum: BelowOne = 0.9  # of sgd and lars; the betas of adamw are 0.9 and 0.999
    decay_all: TrueOrLeftOut | None = None  # also decay biases and the weights of norms, as torch's optimizers do
    lars: Lars | None = None  # settings of the optimizer lars; null: its defaults
    schedule: Literal["cosine", "constant", "multi_step"] = "cosine"  # how the learning rate goes on from lr
    milestones: Counts | None = None  # of multi_step: after each of these epochs the learning rate is divided by ten
    warmup_epochs: NotNegative = 0.0  # of cosine: epochs in which the learning rate rises from 0 to lr, in even steps
    final_lr: NotNegative = 0.0  # of cosine: the learning rate after the last epoch

    @rule
    def _only_lars_has_settings_of_lars(self) -> Iterator[str]:
        if self.lars is not None and self.name != "lars":
            yield f"lars settings are for the optimizer lars, name is {self.name}: leave them out"

    @rule
    def _momentum_is_of_sgd_and_lars(self) -> Iterator[str]:
        if self.name == "adamw" and self.momentum != Optim.model_fields["momentum"].default:
            yield f"momentum is {self.momentum:g}, and adamw has none but its betas, 0.9 and 0.999: leave it out"

    @rule
    def _only_multi_step_has_milestones(self) -> Iterator[str]:
        if self.milestones is not None and self.schedule != "multi_step":
            yield f"schedule {self.schedule} with milestones {list(self.milestones)}: they are for multi_step alone"
        if self.milestones is None and self.schedule == "multi_step":
            yield "schedule multi_step needs milestones, the epochs after which the learning rate falls"

    @rule
    def _only_cosine_rises_and_ends(self) -> Iterator[str]:
        for key in ("warmup_epochs", "final_lr") if self.schedule != "cosine" else ():
            if getattr(self, key):
                yield f"schedule {self.schedule} has no {key}: leave it out, or take schedule cosine"


class Train(Section):
    """How long, how precisely, and what is kept."""

    epochs: Count  # passes over the images that are trained on
    steps: Count | None = None  # stop after this many steps, with the learning rate still planned for all epochs
    precision: Literal["auto", "bf16", "full"] = "auto"  # auto: bf16 where the hardware multiplies it; full: float32
    compile: bool = False  # compile the networks and the making of views; on a CPU this needs a C++ compiler
    micro_batch_size: Count | None = None  # views embedded at a time, over all processes; null: the whole batch
    clip_norm: Positive | None = None  # the largest norm of the gradient of all parameters; null: no limit
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # momentum of averaged weights, which are then the result
    bf16_gradients: TrueOrLeftOut | None = None  # true: several processes average gradients in bf16: half the bytes
    sync_batch_norm: bool = True  # normalize by the batches of all processes, not by each process's own
    checkpoint_every: Count = 10  # epochs between two checkpoints, from which a stopped run goes on
    checkpoint_minutes: Positive = 30.0  # since the last checkpoint after which another is written at any rate
    log_every: Count = 20  # steps between two writes to metrics.jsonl, which has a line for every step
    tracker: Literal["tensorboard", "wandb"] | None = None  # where the metrics go besides
    cpu_threads: Annotated[int, Field(ge=1, le=4096)] | None = None  # of each process; null: its share of the cores
    runs: Location = "runs"  # the folder in which the run gets a folder of its own
