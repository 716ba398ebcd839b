"""The teachers that a recipe names, as models."""

from ssl_transfer import config, runs
from ssl_transfer.context import Context
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.teachers.loading import open_teacher


def load_teacher(teacher: config.Teacher, context: Context, *, report: bool = True) -> EmbeddingModel:
    """A trained teacher, in eval mode and on the CPU; of a file it is said what became of its weights, if wanted.

    The main process alone reads or downloads it.

    Raises:
        UserError: there is no such teacher, it is damaged, or lacks the output asked for.
    """

    def load() -> tuple[EmbeddingModel, list[str]]:
        folder = None if teacher.recipe is None else runs.folder_of(teacher.recipe)[0]
        return open_teacher(teacher, folder)

    model, lines = context.on_main_process(load)  # whose disk has the run, or which downloads it
    if report and lines:
        context.say(f"teacher: {teacher.title}. {' '.join(lines)}")
    return model
