"""Whether a run remembers what its teacher makes of fixed views, and where."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_transfer import __version__, config
from ssl_transfer.context import Context
from ssl_transfer.data import Batch, Batches
from ssl_transfer.distributed import meet
from ssl_transfer.features.cache import structure_hash, weights_hash
from ssl_transfer.models import EmbeddingModel, Frozen, Output
from ssl_transfer.processes import processes_here
from ssl_transfer.tasks.sections.transfer import Transfer
from ssl_transfer.teachers.memory import TeacherMemory, with_teacher


def remembers(recipe: config.Recipe) -> bool:
    """Whether the teacher's embeddings are computed before training and read in it."""
    task = recipe.task
    return (
        recipe.data.fixed_views is not None
        and isinstance(task, Transfer)
        and not task.compares_maps  # of many numbers: not kept
        and task.teacher.memory != "none"
    )


def batches_with_teacher(
    recipe: config.Recipe,
    teacher: EmbeddingModel,
    batches: Batches,
    total_steps: int,
    context: Context,
    check_stop: Callable[[], None],
) -> Callable[[int], Batch]:
    """A function from the step to its batch with the teacher's embeddings, all of which are computed now or known.

    They are kept in the folder ``teacher-memory`` beside the runs. ``check_stop`` is called now and then and may raise;
    what was computed stays. Processes share the work. Machines that share no disk fill each its own files.
    """
    task, images = recipe.task, batches.images
    assert isinstance(task, Transfer) and recipe.data.fixed_views is not None
    epochs = -(-total_steps // batches.steps_per_epoch)
    view_ids = min(recipe.data.fixed_views, epochs)
    memory = TeacherMemory(
        Path(recipe.train.runs) / "teacher-memory",
        _key(recipe, teacher, batches, context),
        images=len(images),
        view_ids=view_ids,
        views=len(batches.views),
        width=teacher.width_of(task.teacher.output),
        precision="float32" if task.teacher.memory == "float32" else "float16",
    )
    context.say(f"remembering the teacher: {memory.bytes / 1e6:,.1f} MB in {memory.folder}")
    taught = context.place(Frozen(Output(teacher, task.teacher.output)))
    accelerator = context.accelerator
    seen = 0
    # All processes of all machines share the work; where they share no disk, each machine does what it then lacks.
    shares = [(accelerator.process_index, accelerator.num_processes)]
    if context.machine.count > 1:
        shares.append((accelerator.local_process_index, processes_here()))
    for share in shares:
        seen += memory.fill(batches, _in_precision(taught, context), share=share, before_each=check_stop)
        meet()  # however much slower another machine is
    if context.machine.first:
        memory.mark_whole()
    seen = int(accelerator.reduce(torch.tensor(seen, device=context.device)))
    asked = total_steps * batches.batch_size * len(batches.views)
    context.say(f"the teacher saw {seen:,} views; without memory it would see {asked:,} in the whole run")
    teacher.to("cpu")  # it will not be asked again; the caller takes it out of the task
    return with_teacher(batches, memory)


def _in_precision(teacher: nn.Module, context: Context) -> Callable[[Tensor], Tensor]:
    def embed(views: Tensor) -> Tensor:
        with context.autocast():
            return teacher(views)

    return embed


def _key(recipe: config.Recipe, teacher: EmbeddingModel, batches: Batches, context: Context) -> dict[str, object]:
    """All that decides what the teacher makes of a view, in words."""
    assert isinstance(recipe.task, Transfer)
    return {
        "data": batches.images.fingerprint,
        "image": list(batches.images.pixels.shape[1:]),
        "augmentation": [vars(view) for view in batches.views],
        "seed": recipe.seed,
        "teacher": weights_hash(teacher),
        "structure": structure_hash(teacher),
        "network": teacher.backbone.name,
        "preprocessing": str(teacher.backbone.preprocessing),
        "output": recipe.task.teacher.output,
        "arithmetic": f"{context.precision_name}, asked for {recipe.train.precision}, on {context.device.type}",
        "version": __version__,
    }
