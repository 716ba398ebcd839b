"""The teacher that a recipe names, as a model."""

from pathlib import Path

from ssl_transfer import config, runs
from ssl_transfer.checkpoint import build_model, load_model
from ssl_transfer.context import Context
from ssl_transfer.data import Images
from ssl_transfer.model_building import model_spec
from ssl_transfer.models import EmbeddingModel


def teacher_of(recipe: config.Recipe) -> config.Teacher | None:
    """The recipe's teacher, None where there is nothing to learn from one."""
    return getattr(recipe.task, "teacher", None)


def load_teacher(recipe: config.Recipe, images: Images, context: Context) -> EmbeddingModel:
    """The trained teacher of ``recipe``, which must have one, in eval mode and on the CPU.

    Raises:
        ValueError, FileNotFoundError: there is no such teacher, or it is damaged.
    """
    teacher = teacher_of(recipe)
    assert teacher is not None
    if teacher.timm is not None:
        named = recipe.model.model_copy(
            update={"backbone": teacher.timm, "pretrained": True, "stem": "default", "embedding_dim": None}
        )
        spec = model_spec(recipe.model_copy(update={"model": named}), images)
        return build_model(spec, pretrained=True).eval()
    if teacher.checkpoint is not None:
        return load_model(Path(teacher.checkpoint))[0]
    made_by = teacher.recipe
    assert made_by is not None
    return load_model(context.on_main(lambda: runs.folder_of(made_by))[0])[0]


def teacher_name(teacher: config.Teacher) -> str:
    """What a table calls the teacher."""
    if teacher.recipe is not None:
        return teacher.recipe.model.backbone
    return teacher.timm or Path(teacher.checkpoint or "").name
