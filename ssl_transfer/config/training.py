"""``optim`` and ``train``: the optimizer, and how long, how precisely and where it runs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssl_transfer.section import Count, Counts, NotNegative, Positive, Section


class Lars(Section):
    """How LARS adapts the rate of a weight: ``trust_coefficient * |weight| / |gradient|``, times the learning rate."""

    trust_coefficient: Positive = 0.001
    trust_clip: bool = False  # not times the learning rate, but at most it (LARC)


class Optim(Section):
    """The optimizer, and its learning rate as a function of the step."""

    name: Literal["sgd", "adamw", "lars"]
    lr: Positive
    weight_decay: NotNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    decay_all: Literal[True] | None = None  # weight decay also of biases and norms, as torch's optimizers have it
    lars: Lars | None = None  # null: its defaults
    schedule: Literal["cosine", "constant", "multi_step"] = "cosine"
    milestones: Counts | None = None  # of multi_step: the epochs from which on the rate is a tenth of what it was
    warmup_epochs: NotNegative = 0.0
    final_lr: NotNegative = 0.0

    @model_validator(mode="after")
    def _lars_of_lars(self) -> "Optim":
        if self.lars is not None and self.name != "lars":
            raise ValueError(f"lars settings are for the optimizer lars, name is {self.name}: leave them out")
        return self

    @model_validator(mode="after")
    def _milestones_of_multi_step(self) -> "Optim":
        if (self.schedule == "multi_step") != (self.milestones is not None):
            raise ValueError(
                f"schedule {self.schedule} with milestones {self.milestones}: give them with multi_step, only then"
            )
        if self.milestones is not None and self.warmup_epochs:
            raise ValueError("multi_step has no warm-up: leave out warmup_epochs, or take schedule cosine")
        return self


class Train(Section):
    """How long, how precisely, and what is kept."""

    epochs: Count
    steps: Count | None = None  # stop after so many steps; the learning rate is still planned for all epochs
    precision: Literal["auto", "bf16", "full"] = "auto"  # auto: bf16 where the hardware multiplies it
    compile: bool = False  # the network and the making of views, by torch.compile; on a CPU it needs a C++ compiler
    micro_batch_size: Count | None = None  # views embedded at a time, over all processes, and batch norm sees as many
    clip_norm: Positive | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # momentum of an average of the weights, scored and exported
    sync_batch_norm: bool = True
    checkpoint_every: Count = 10  # epochs
    log_every: Count = 20  # steps between flushes of metrics.jsonl
    tracker: Literal["tensorboard", "wandb"] | None = None
    cpu_threads: Count | None = None  # null: the machine's cores divided by its processes
    runs: str = "runs"
