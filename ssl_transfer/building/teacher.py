"""The teacher that a recipe names, as a model."""

from ssl_transfer import config, runs
from ssl_transfer.context import Context
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.teachers.loading import open_teacher


def load_teacher(recipe: config.Recipe, context: Context) -> EmbeddingModel:
    """The trained teacher of ``recipe``, which must have one, in eval mode and on the CPU.

    The main process alone reads or downloads it.

    Raises:
        UserError: there is no such teacher, it is damaged, or lacks the output asked for.
    """
    teacher = recipe.teacher
    assert teacher is not None

    def load() -> tuple[EmbeddingModel, list[str]]:
        folder = None if teacher.recipe is None else runs.folder_of(teacher.recipe)[0]
        return open_teacher(teacher, folder)

    model, report = context.on_main_process(load)  # whose disk has the run, or which downloads it
    if report:
        context.say(f"teacher {teacher.file}: {'; '.join(report)}")
    return model
