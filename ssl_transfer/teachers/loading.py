"""The model that a teacher's section names, whichever of its six sources that is."""

from pathlib import Path
from typing import Any

from ssl_transfer.models import EmbeddingModel, load_foreign, timm_pretrained, torchvision_pretrained
from ssl_transfer.models.checkpoint import load_model
from ssl_transfer.teachers.section import Teacher, named_teacher


def open_model(model: str, **described: Any) -> tuple[EmbeddingModel, list[str]]:
    """The model that one word names, in eval mode, and for a file of another tool what became of its weights.

    ``model`` is a run or exported folder, ``zoo:NAME``, ``timm:NAME``, ``torchvision:NAME``, or a checkpoint
    (:func:`ssl_transfer.teachers.section.named_source`). ``described`` are keys of ``task.teacher`` that go with it:
    ``backbone``, ``format``, ``prefix``, ``stem``, ``mean``, ``std``, ``image_size``.

    Raises:
        ValueError, FileNotFoundError: there is no such model, it is damaged, or what is described does not suit it.
    """
    return open_teacher(named_teacher(model, **described), folder=None)


def open_teacher(teacher: Teacher, folder: Path | None) -> tuple[EmbeddingModel, list[str]]:
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
            prefix=teacher.prefix,
            stem=teacher.stem or "default",
            **prepared,
        )
        report, no_projection = loaded.lines(), loaded.no_projection
    elif teacher.timm is not None:
        model = EmbeddingModel(timm_pretrained(teacher.timm, **prepared))
    elif teacher.torchvision is not None:
        model = EmbeddingModel(torchvision_pretrained(teacher.torchvision, **prepared))
    else:
        source = folder or teacher.folder
        assert source is not None  # one of the six sources is given, and a folder is left
        model, no_projection = load_model(source)[0], "its run had none"
    if teacher.output != "features" and model.head is None:
        raise ValueError(
            f"teacher.output is {teacher.output}, but {teacher.title} has no projection head "
            f"({no_projection}): write output: features"
        )
    return model.eval(), report
