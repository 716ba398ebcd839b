"""``task.teacher``: where a teacher comes from, and which of its outputs is transferred."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, model_validator

from ssl_transfer.catalog.checkpoint_formats import FORMATS
from ssl_transfer.section import Color, Count, Section, suggest

if TYPE_CHECKING:
    from ssl_transfer.config.schema import Recipe


def _known_format(name: str) -> str:
    names = ["auto", *(row.name for row in FORMATS)]
    if name not in names:
        raise ValueError(f"there is no such format{suggest(name, names)}")
    return name


SOURCES = ("recipe", "checkpoint", "timm", "torchvision", "file")


class Teacher(Section):
    """Where the teacher comes from (one of five), and which of its outputs is transferred.

    A file of another tool needs the name of its ``backbone``, and a ``prefix`` where it has the weights of that network
    more than once. ``mean``, ``std`` and ``image_size`` replace what a published network brings; a file needs them
    where its format does not fix them. They are never those of the data. A ``~`` at the beginning of ``checkpoint`` or
    ``file`` is the home folder.
    """

    recipe: "Recipe | None" = None
    checkpoint: str | None = None  # a run folder, or one written by export
    timm: str | None = None  # pretrained; also hf-hub:OWNER/NAME and local-dir:FOLDER
    torchvision: str | None = None  # pretrained, as resnet50 or resnet50.IMAGENET1K_V1
    file: str | None = None  # a checkpoint of another tool
    format: Annotated[str, AfterValidator(_known_format)] | None = None  # of the file; null and auto: by its names
    prefix: str | None = None  # the dotted name in the file below which the backbone's weights are; null: looked for
    backbone: str | None = None  # timm's name of the network in the file
    stem: Literal["default", "cifar"] | None = None
    mean: Color | None = None
    std: Color | None = None
    image_size: Count | None = None
    output: Literal["features", "projection", "embedding", "logits"] = "features"
    memory: Literal["none", "float16", "float32"] | None = None  # of fixed views; null: float16

    @model_validator(mode="after")
    def _consistent(self) -> "Teacher":
        given = [key for key in SOURCES if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(SOURCES)}; given: {', '.join(given) or 'none'}")
        source = given[0]
        if source == "file" and self.backbone is None:
            raise ValueError("file needs backbone, timm's name of the network in it, for example backbone: resnet50")
        allowed = {"file": _OF_A_FILE, "timm": _PREPARED, "torchvision": _PREPARED}
        extra = [key for key in _OF_A_FILE if getattr(self, key) is not None and key not in allowed.get(source, ())]
        if extra:
            raise ValueError(f"{', '.join(extra)} cannot be given with {source}, which brings its own: leave out")
        return self

    @property
    def title(self) -> str:
        """What a table calls the teacher: its network, and of a file its name."""
        if self.recipe is not None:
            return self.recipe.model.backbone
        if self.file is not None:
            return f"{self.backbone} of {Path(self.file).name}"
        return self.timm or self.torchvision or Path(self.checkpoint or "").name

    @property
    def path(self) -> Path | None:
        """The ``file`` or the folder of the ``checkpoint``, with the home folder in the place of ``~``."""
        given = self.file or self.checkpoint
        return None if given is None else Path(given).expanduser()


_PREPARED = ("mean", "std", "image_size")
_OF_A_FILE = ("format", "prefix", "backbone", "stem", *_PREPARED)
