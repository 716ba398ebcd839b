"""The teacher that a recipe names, as a model."""

from ssl_transfer import config, runs
from ssl_transfer.context import Context
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.teachers.loading import open_teacher


def load_teacher(recipe: config.Recipe, context: Context) -> EmbeddingModel:
    """The trained teacher of ``recipe``, which must have one, in eval mode and on the CPU.

    Raises:
        ValueError, FileNotFoundError: there is no such teacher, it is damaged, or lacks the output asked for.
    """
    teacher = recipe.teacher
    assert teacher is not None
    made_by = teacher.recipe
    folder = None if made_by is None else context.on_main_process(lambda: runs.folder_of(made_by))[0]
    model, report = open_teacher(teacher, folder)
    if report:
        context.say(f"teacher {teacher.file}: {'; '.join(report)}")
    return model
