"""The teacher that a recipe names, as a model."""

from pathlib import Path
from typing import Any

from ssl_transfer import config, runs
from ssl_transfer.checkpoint import load_model
from ssl_transfer.context import Context
from ssl_transfer.models import EmbeddingModel, load_foreign, timm_pretrained, torchvision_pretrained


def load_teacher(recipe: config.Recipe, context: Context) -> EmbeddingModel:
    """The trained teacher of ``recipe``, which must have one, in eval mode and on the CPU.

    Raises:
        ValueError, FileNotFoundError: there is no such teacher, it is damaged, or lacks the output asked for.
    """
    teacher = recipe.teacher
    assert teacher is not None
    made_by = teacher.recipe
    folder = None if made_by is None else context.on_main(lambda: runs.folder_of(made_by))[0]
    model, report = open_teacher(teacher, folder)
    if report:
        context.say(f"teacher {teacher.file}: {'; '.join(report)}")
    return model


def open_teacher(teacher: config.Teacher, folder: Path | None) -> tuple[EmbeddingModel, list[str]]:
    """The model that ``teacher`` names, and for a file of another tool what became of its weights.

    ``folder`` is that of the teacher's run, where the teacher is a recipe.

    Raises:
        ValueError, FileNotFoundError: there is no such teacher, it is damaged, or lacks the output asked for.
    """
    prepared: dict[str, Any] = {"mean": teacher.mean, "std": teacher.std, "image_size": teacher.image_size}
    report: list[str] = []
    no_projection = "a published network comes without one"
    if teacher.file is not None:
        assert teacher.backbone is not None  # the schema asks for it
        model, loaded = load_foreign(
            Path(teacher.file),
            backbone=teacher.backbone,
            format=teacher.format or "auto",
            stem=teacher.stem or "default",
            **prepared,
        )
        report, no_projection = loaded.lines(), loaded.no_projection
    elif teacher.timm is not None:
        model = EmbeddingModel(timm_pretrained(teacher.timm, **prepared))
    elif teacher.torchvision is not None:
        model = EmbeddingModel(torchvision_pretrained(teacher.torchvision, **prepared))
    else:
        source = folder or Path(teacher.checkpoint or "")
        model, no_projection = load_model(source)[0], "its run had none"
    if teacher.output != "features" and model.head is None:
        raise ValueError(
            f"teacher.output is {teacher.output}, but {teacher_name(teacher)} has no projection head "
            f"({no_projection}): write output: features"
        )
    return model.eval(), report


def teacher_name(teacher: config.Teacher) -> str:
    """What a table calls the teacher."""
    if teacher.recipe is not None:
        return teacher.recipe.model.backbone
    if teacher.file is not None:
        return f"{teacher.backbone} of {Path(teacher.file).name}"
    return teacher.timm or teacher.torchvision or Path(teacher.checkpoint or "").name
