"""``optim`` and ``train``: the optimizer, and how long, how precisely and where it runs."""

from typing import Annotated, Literal

from pydantic import Field

from ssl_transfer.config.fields import Count, NotNegative, Positive, Section


class Optim(Section):
    """The optimizer, and its learning rate as a function of the step."""

    name: Literal["sgd", "adamw", "lars"]
    lr: Positive
    weight_decay: NotNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: NotNegative = 0.0
    final_lr: NotNegative = 0.0


class Train(Section):
    """How long, how precisely, and what is kept."""

    epochs: Count
    steps: Count | None = None  # stop after so many steps; the learning rate is still planned for all epochs
    precision: Literal["auto", "bf16", "full"] = "auto"  # auto: bf16 where the hardware multiplies it
    compile: bool = False
    micro_batch_size: Count | None = None  # views embedded at a time by a process; the gradient is that of the batch
    clip_norm: Positive | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # momentum of an average of the weights, scored and exported
    sync_batch_norm: bool = True
    checkpoint_every: Count = 10  # epochs
    log_every: Count = 20  # steps between flushes of metrics.jsonl
    tracker: Literal["tensorboard", "wandb"] | None = None
    cpu_threads: Count | None = None  # null: the machine's cores divided by its processes
    runs: str = "runs"
