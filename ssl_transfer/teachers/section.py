"""``task.teacher``: where a teacher, or each of several, comes from, and which of its outputs is transferred."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError

from ssl_transfer import zoo
from ssl_transfer.catalog.checkpoint_formats import FORMATS
from ssl_transfer.section import (
    Count,
    Deviation,
    Location,
    Mean,
    Positive,
    Section,
    location,
    reason,
    rule,
    suggest,
    tag,
)

if TYPE_CHECKING:
    from ssl_transfer.config.schema import Recipe


def _known_format(name: str) -> str:
    names = ["auto", *(row.name for row in FORMATS)]
    if name not in names:
        raise ValueError(f"there is no such format{suggest(name, names)}")
    return name


def _in_the_zoo(name: str) -> str:
    if name not in zoo.names():
        raise ValueError(f"no such model comes with the package{suggest(name, zoo.names())}")
    return name


def _located(name: str) -> str:
    """timm's name of a network; a folder is one too."""
    scheme, colon, folder = name.partition(":")
    return f"{scheme}:{location(folder)}" if scheme == "local-dir" and colon else name


NAMED_SOURCES = ("zoo", "timm", "torchvision", "file")  # as KIND:NAME, where a model is named in one word
SOURCES = ("recipe", "checkpoint", *NAMED_SOURCES)


class Teacher(Section):
    """Where the teacher comes from (one of six), and which of its outputs is transferred.

    A file of another tool needs the name of its ``backbone``, and a ``prefix`` where it has the weights of that network
    more than once. ``mean``, ``std`` and ``image_size`` replace what a published network brings; a file needs them
    where its format does not fix them. They are never those of the data. A ``~`` at the beginning of ``checkpoint`` or
    ``file`` is the home folder.
    """

    recipe: "Recipe | None" = None  # it is trained first, unless that is done; a path, or a recipe in place
    checkpoint: Location | None = None  # a run folder, or one written by export
    zoo: Annotated[str, AfterValidator(_in_the_zoo)] | None = None  # a model that comes with the package
    timm: Annotated[str, AfterValidator(_located)] | None = (
        None  # pretrained; also hf-hub:OWNER/NAME and local-dir:FOLDER
    )
    torchvision: str | None = None  # pretrained, as resnet50 or resnet50.IMAGENET1K_V1
    file: Location | None = None  # a checkpoint of another tool
    format: Annotated[str, AfterValidator(_known_format)] | None = None  # of the file; null and auto: by its names
    prefix: str | None = None  # the dotted name in the file below which the backbone's weights are; null: looked for
    backbone: str | None = None  # timm's name of the network in the file
    stem: Literal["default", "cifar"] | None = None  # of the network in the file, as model.stem
    mean: Mean | None = None  # of pixels from 0 to 1, by color; null: what its source says
    std: Deviation | None = None  # standard deviation likewise
    image_size: Count | None = None  # side in pixels to which the teacher's images are brought; likewise
    output: Literal["features", "projection", "embedding", "logits"] = "features"  # what is transferred
    memory: Literal["none", "float16", "float32"] | None = None  # of fixed views; null: float16
    weight: Positive | None = None  # of one among several, whose weights are divided by their sum; null: 1

    @rule
    def _comes_from_one_place(self) -> Iterator[str]:
        given = self._sources
        if len(given) != 1:
            yield f"give exactly one of {', '.join(SOURCES)}; given: {', '.join(given) or 'none'}"

    @rule
    def _a_file_is_of_a_known_network(self) -> Iterator[str]:
        if self.file is not None and self.backbone is None:
            yield "file needs backbone, timm's name of the network in it, for example backbone: resnet50"

    @rule
    def _has_nothing_that_its_source_brings(self) -> Iterator[str]:
        prepared = ("mean", "std", "image_size")
        described = ("format", "prefix", "backbone", "stem", *prepared)
        allowed = {"file": described, "timm": prepared, "torchvision": prepared}
        for source in self._sources if len(self._sources) == 1 else ():
            extra = [key for key in described if getattr(self, key) is not None and key not in allowed.get(source, ())]
            if extra:
                yield f"{', '.join(extra)} cannot be given with {source}, which brings its own: leave out"

    @rule
    def _mean_and_std_are_of_the_same_colors(self) -> Iterator[str]:
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            yield f"mean has {len(self.mean)} values and std {len(self.std)}: give both for the same colors"

    @property
    def _sources(self) -> list[str]:
        return [key for key in SOURCES if getattr(self, key) is not None]

    @property
    def title(self) -> str:
        """What a table calls the teacher: its network, and of a file its name."""
        if self.recipe is not None:
            return self.recipe.model.backbone
        if self.file is not None:
            return f"{self.backbone} of {Path(self.file).name}"
        return self.zoo or self.timm or self.torchvision or Path(self.checkpoint or "").name

    @property
    def folder(self) -> Path | None:
        """Where its model lies, if that is a folder that is there already."""
        if self.zoo is not None:
            return zoo.folder(self.zoo)
        return None if self.checkpoint is None else Path(self.checkpoint)


def _one_or_several(given: Any) -> str:
    return _SEVERAL if isinstance(given, list) else _ONE


_ONE, _SEVERAL = tag("one"), tag("several")
Teachers = Annotated[
    Annotated[Teacher, Tag(_ONE)] | Annotated[list[Teacher], Field(min_length=1), Tag(_SEVERAL)],
    Discriminator(_one_or_several),
]


def teacher_place(number: int, of: int) -> str:
    """The dotted key of a teacher in a recipe, ``number`` counting from 0."""
    return "task.teacher" if of == 1 else f"task.teacher.{number}"


def named_source(model: str) -> dict[str, str]:
    """The key of :class:`Teacher` that ``model`` stands for, as commands and Python take a model in one word.

    ``zoo:NAME``, ``timm:NAME``, ``torchvision:NAME`` and ``file:PATH`` say which it is. Any other word is a path: of a
    folder, which is a run or what ``export`` wrote; of the ``model.safetensors`` in one; or of a checkpoint of another
    tool.

    Raises:
        FileNotFoundError: there is neither a folder nor a file of that name.
        ValueError: nothing can lie at such a path.
    """
    kind, colon, name = model.partition(":")
    if colon and kind in NAMED_SOURCES:
        return {kind: name}
    path = Path(location(model))
    if path.name == "model.safetensors" and (path.parent / "config.json").is_file():
        path = path.parent
    if path.is_dir():
        return {"checkpoint": str(path)}
    if path.is_file():
        return {"file": str(path)}
    raise FileNotFoundError(
        f"there is no folder or file {model}: name a run, an exported folder or a checkpoint, or a published network "
        f"as timm:NAME or torchvision:NAME, such as timm:{path.name if path.name.isidentifier() else 'resnet18'}"
    )


def named_teacher(model: str, **described: Any) -> Teacher:
    """The section for :func:`named_source`, with those of its other keys that are ``described``, None being left out.

    Raises:
        FileNotFoundError: as :func:`named_source`.
        ValueError: what is described does not suit the source, or is missing.
    """
    given: dict[str, Any] = {key: value for key, value in described.items() if value is not None}
    try:
        return Teacher(**(named_source(model) | given))
    except ValidationError as error:
        raise ValueError(f"{model}: {reason(error).removeprefix('Value error, ')}") from None
