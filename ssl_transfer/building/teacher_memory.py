"""Which of its teachers a run remembers on fixed views, and where."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_transfer import __version__, config
from ssl_transfer.catalog.roles import teacher_word
from ssl_transfer.context import Context
from ssl_transfer.data import Batch, Batches
from ssl_transfer.distributed import meet
from ssl_transfer.features.identity import structure_hash, weights_hash
from ssl_transfer.models import EmbeddingModel, Frozen, Output
from ssl_transfer.processes import processes_here
from ssl_transfer.tasks.sections.transfer import Transfer
from ssl_transfer.teachers.memory import TeacherMemory, with_teachers


def remembered_teachers(recipe: config.Recipe) -> list[int]:
    """Which teachers' embeddings are computed before training and read in it, by their places in the recipe."""
    task = recipe.task
    if recipe.data.fixed_views is None or not isinstance(task, Transfer) or task.compares_maps:  # too many to keep
        return []
    return [place for place, teacher in enumerate(recipe.teachers) if teacher.memory != "none"]


def batches_with_teachers(
    recipe: config.Recipe,
    teachers: Sequence[EmbeddingModel],
    batches: Batches,
    total_steps: int,
    context: Context,
    check_stop: Callable[[], None],
) -> Callable[[int], Batch]:
    """A function from the step to its batch with the embeddings of those teachers that are remembered.

    All of them are computed now or known. They are kept in the folder ``teacher-memory`` beside the runs.
    ``check_stop`` is called now and then and may raise; what was computed stays. Processes share the work. Machines
    that share no disk fill each its own files.
    """
    memories: list[TeacherMemory | None] = [None] * len(teachers)
    for place in remembered_teachers(recipe):
        memories[place] = _filled(recipe, place, teachers[place], batches, total_steps, context, check_stop)
    return with_teachers(batches, memories)


def _filled(
    recipe: config.Recipe,
    place: int,
    teacher: EmbeddingModel,
    batches: Batches,
    total_steps: int,
    context: Context,
    check_stop: Callable[[], None],
) -> TeacherMemory:
    """The memory of the recipe's teacher at ``place``, complete."""
    section, images = recipe.teachers[place], batches.images
    assert recipe.data.fixed_views is not None
    alone = len(recipe.teachers) == 1
    called = ("the " if alone else "") + teacher_word(place, len(recipe.teachers))
    epochs = -(-total_steps // batches.steps_per_epoch)
    view_ids = min(recipe.data.fixed_views, epochs)
    memory = TeacherMemory(
        Path(recipe.train.runs) / "teacher-memory",
        _key(recipe, section, teacher, batches, context),
        images=len(images),
        view_ids=view_ids,
        views=len(batches.views),
        width=teacher.width_of(section.output),
        precision="float32" if section.memory == "float32" else "float16",
    )
    if context.machine.first:
        memory.take_over(lambda count: images.subset(torch.arange(count)).fingerprint)
    meet()
    context.say(f"remembering {called}: {memory.bytes / 1e6:,.1f} MB in {memory.folder}")
    taught = context.place(Frozen(Output(teacher, section.output)))
    accelerator = context.accelerator
    seen = 0
    # All processes of all machines share the work; where they share no disk, each machine does what it then lacks.
    shares = [(accelerator.process_index, accelerator.num_processes)]
    if context.machine.count > 1:
        shares.append((accelerator.local_process_index, processes_here()))
    for share in shares:
        seen += memory.fill(
            batches,
            _in_precision(taught, context),
            share=share,
            before_each=check_stop,
            title=f"remembering {called}",
            console=context.console,
        )
        meet()  # however much slower another machine is
    if context.machine.first:
        memory.mark_whole()
    seen = int(accelerator.reduce(torch.tensor(seen, device=context.device)))
    asked = total_steps * batches.batch_size * len(batches.views)
    context.say(f"{called} saw {seen:,} views; without memory it would see {asked:,} in the whole run")
    teacher.to("cpu")  # it will not be asked again; the caller takes it out of the task
    return memory


def _in_precision(teacher: nn.Module, context: Context) -> Callable[[Tensor], Tensor]:
    def embed(views: Tensor) -> Tensor:
        with context.autocast():
            return teacher(views)

    return embed


def _key(
    recipe: config.Recipe, section: config.Teacher, teacher: EmbeddingModel, batches: Batches, context: Context
) -> dict[str, object]:
    """All that decides what the teacher makes of a view, in words."""
    return {
        "data": batches.images.fingerprint,
        "image": list(batches.images.pixels.shape[1:]),
        "augmentation": [vars(view) for view in batches.views],
        "seed": recipe.seed,
        "teacher": weights_hash(teacher),
        "structure": structure_hash(teacher),
        "network": teacher.backbone.name,
        "preprocessing": str(teacher.backbone.preprocessing),
        "output": section.output,
        "arithmetic": f"{context.precision_name}, asked for {recipe.train.precision}, on {context.device.type}",
        "version": __version__,
    }
