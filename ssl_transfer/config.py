"""The recipe: eight keys, strict, every problem of a file told at once. Imports no torch, so a typo fails in a moment.

A default is written here and nowhere else. :func:`load` reads a file, puts a teacher's recipe in the place of its path,
applies ``key.path=value`` overrides and validates; what it returns is complete, and can be saved and run by itself.
"""

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)

from ssl_transfer.data.presets import PRESETS
from ssl_transfer.errors import UserError
from ssl_transfer.losses.weights import WEIGHTS

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Range = Annotated[tuple[Positive, Positive], Strict(False)]
Color = Annotated[tuple[float, ...], Strict(False), Field(min_length=1)]
Counts = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no silent conversion, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"there is no such preset{suggest(name, PRESETS)}")
    return name


class Augment(Section):
    """How a view is made: a preset, and any parameter of :class:`ssl_transfer.data.Augment` that should differ."""

    preset: Annotated[str, AfterValidator(_known_preset)]
    crop_scale: Range | None = None
    crop_ratio: Range | None = None
    crop_padding: Annotated[int, Field(ge=0)] | None = None
    flip: Probability | None = None
    color_jitter: Probability | None = None
    brightness: NotNegative | None = None
    contrast: NotNegative | None = None
    saturation: NotNegative | None = None
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = None
    grayscale: Probability | None = None
    blur: Probability | None = None
    blur_sigma: Range | None = None
    solarize: Probability | None = None
    solarize_threshold: Probability | None = None
    cutout: Annotated[int, Field(ge=0)] | None = None

    def views(self, count: int) -> list[dict[str, Any]]:
        """The keyword arguments of each view's augmentation; a preset with fewer views than asked for is cycled."""
        changed = self.model_dump(exclude={"preset"}, exclude_none=True)
        preset = PRESETS[self.preset]
        return [{**preset[view % len(preset)], **changed} for view in range(count)]


class Data(Section):
    """Images, and how a batch of views is drawn from them."""

    dataset: Literal["digits", "cifar10", "cifar100"]
    root: str = "data"
    download: bool = True
    batch_size: Annotated[int, Field(ge=2)]  # images per step over all processes
    views: Count = 2
    augment: Augment  # a preset's name alone is short for {preset: name}


class Model(Section):
    """The network that is trained."""

    backbone: str
    stem: Literal["default", "cifar"] = "default"
    embedding_dim: Count | None = None  # width of a linear head; null: the backbone's pooled features themselves
    pretrained: bool = False
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mean: Color | None = None  # null: of the pretrained weights, else of the data set
    std: Color | None = None


class Teacher(Section):
    """Where the teacher comes from (one of three), and which of its outputs is transferred."""

    recipe: "Recipe | None" = None
    checkpoint: str | None = None
    timm: str | None = None
    output: Literal["features", "projection", "embedding"] = "features"

    @model_validator(mode="after")
    def _exactly_one(self) -> "Teacher":
        given = [key for key in ("recipe", "checkpoint", "timm") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of recipe, checkpoint, timm; given: {', '.join(given) or 'none'}")
        return self


class SimCLR(Section):
    """Contrast two views of an image with all others (Chen et al., ICML 2020)."""

    kind: Literal["simclr"]
    temperature: Positive = 0.5
    projection_dim: Count = 128
    hidden_dim: Count | None = None  # null: as wide as the features


class Transfer(Section):
    """What all ways of transfer share. Further keys have the names of the loss's arguments in ssl_transfer.losses."""

    teacher: Teacher


class RelaxedContrastive(Transfer):
    """Give the student the teacher's geometry by the relaxed contrastive loss (Kim et al., CVPR 2021)."""

    kind: Literal["relaxed_contrastive"]
    weight: Positive = WEIGHTS["relaxed_contrastive"]
    sigma: Positive = 1.0
    delta: Positive = 1.0
    affinity: Literal["gaussian", "contextual"] = "gaussian"
    neighbors: Count = 10  # of the contextual affinity


class RelaxedMultiSimilarity(Transfer):
    """The relaxed multi-similarity loss of the authors' code."""

    kind: Literal["relaxed_multi_similarity"]
    weight: Positive = WEIGHTS["relaxed_multi_similarity"]
    sigma: Positive = 1.0
    delta: Positive = 1.0
    alpha: Positive = 1.0
    beta: Positive = 2.0
    affinity: Literal["gaussian", "contextual"] = "gaussian"
    neighbors: Count = 10


class RKD(Transfer):
    """Relational knowledge distillation by distances and angles (Park et al., CVPR 2019)."""

    kind: Literal["rkd"]
    distance_weight: NotNegative = WEIGHTS["rkd_distance"]
    angle_weight: NotNegative = WEIGHTS["rkd_angle"]


class PKT(Transfer):
    """Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018)."""

    kind: Literal["pkt"]
    weight: Positive = WEIGHTS["pkt"]


class DarkRank(Transfer):
    """The teacher's ranking of neighbours, hard form (Chen et al., AAAI 2018)."""

    kind: Literal["dark_rank"]
    weight: Positive = WEIGHTS["dark_rank"]
    alpha: Positive = 3.0
    beta: Positive = 3.0
    length: Count = 4


class SimilarityPreserving(Transfer):
    """Similarity-preserving distillation (Tung and Mori, ICCV 2019)."""

    kind: Literal["similarity_preserving"]
    weight: Positive = WEIGHTS["similarity_preserving"]


class CorrelationCongruence(Transfer):
    """Correlation congruence (Peng et al., ICCV 2019)."""

    kind: Literal["correlation_congruence"]
    weight: Positive = WEIGHTS["correlation_congruence"]
    gamma: Positive = 0.4
    order: Count = 2


class SEED(Transfer):
    """Similarities to a queue of the teacher's embeddings (Fang et al., ICLR 2021)."""

    kind: Literal["seed"]
    weight: Positive = WEIGHTS["seed"]
    queue_size: Count = 65536
    student_temperature: Positive = 0.2
    teacher_temperature: Positive = 0.01


class FitNet(Transfer):
    """Regression of the teacher's feature maps (Romero et al., ICLR 2015)."""

    kind: Literal["fitnet"]
    weight: Positive = WEIGHTS["fitnet"]


class AttentionTransfer(Transfer):
    """The teacher's spatial attention (Zagoruyko and Komodakis, ICLR 2017)."""

    kind: Literal["attention_transfer"]
    weight: Positive = WEIGHTS["attention_transfer"]


class VID(Transfer):
    """Variational information distillation of feature maps (Ahn et al., CVPR 2019)."""

    kind: Literal["vid"]
    weight: Positive = WEIGHTS["vid"]


class CRD(Transfer):
    """Contrastive representation distillation, negatives from all images (Tian et al., ICLR 2020)."""

    kind: Literal["crd"]
    weight: Positive = WEIGHTS["contrastive_representation"]
    width: Count = 128
    negatives: Count = 4096
    temperature: Positive = 0.07
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5


class SoftTargets(Transfer):
    """Softened outputs, the teacher's embedding read as logits (Hinton et al., 2015)."""

    kind: Literal["soft_targets"]
    weight: Positive = WEIGHTS["soft_targets"]
    temperature: Positive = 4.0


Task = Annotated[
    SimCLR
    | RelaxedContrastive
    | RelaxedMultiSimilarity
    | RKD
    | PKT
    | DarkRank
    | SimilarityPreserving
    | CorrelationCongruence
    | SEED
    | FitNet
    | AttentionTransfer
    | VID
    | CRD
    | SoftTargets,
    Field(discriminator="kind"),
]


class Optim(Section):
    """The optimizer, and its learning rate as a function of the step."""

    name: Literal["sgd", "adamw", "lars"]
    lr: Positive
    weight_decay: NotNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: NotNegative = 0.0
    final_lr: NotNegative = 0.0


class Train(Section):
    """How long, how precisely, and what is kept."""

    epochs: Count
    steps: Count | None = None  # stop after so many steps; the learning rate is still planned for all epochs
    precision: Literal["auto", "bf16", "full"] = "auto"  # auto: bf16 where the hardware multiplies it
    compile: bool = False
    micro_batch_size: Count | None = None  # views embedded at a time by a process; the gradient is that of the batch
    clip_norm: Positive | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # momentum of an average of the weights, scored and exported
    sync_batch_norm: bool = True
    checkpoint_every: Count = 10  # epochs
    log_every: Count = 20  # steps between flushes of metrics.jsonl
    tracker: Literal["tensorboard", "wandb"] | None = None
    cpu_threads: Count | None = None  # null: the machine's cores divided by its processes
    runs: str = "runs"


class KNN(Section):
    """Weighted cosine nearest neighbours (Wu et al., CVPR 2018)."""

    kind: Literal["knn"]
    k: Counts = (20, 200)
    temperature: Positive = 0.1


class LinearProbe(Section):
    """Multinomial logistic regression on standardised features."""

    kind: Literal["linear_probe"]


class FewShot(Section):
    """The same regression on a few labels per class, over several draws."""

    kind: Literal["few_shot"]
    labels_per_class: Counts = (1, 10)
    draws: Annotated[int, Field(ge=2)] = 10


Score = Annotated[KNN | LinearProbe | FewShot, Field(discriminator="kind")]


class Recipe(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    model: Model
    task: Task
    optim: Optim
    train: Train
    score: list[Score]

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.optim.warmup_epochs > self.train.epochs:
            raise ValueError(
                f"optim.warmup_epochs is {self.optim.warmup_epochs:g} but train.epochs only {self.train.epochs}"
            )
        if self.task.kind == "simclr" and self.data.views != 2:
            raise ValueError(f"simclr contrasts exactly two views, data.views is {self.data.views}")
        if self.task.kind == "simclr" and self.model.embedding_dim is not None:
            raise ValueError("simclr ends in a projection: write task.projection_dim instead of model.embedding_dim")
        if self.task.kind in ("fitnet", "attention_transfer", "vid") and self.train.micro_batch_size is not None:
            raise ValueError(
                f"{self.task.kind} is a mean over images: lower data.batch_size instead of micro_batch_size"
            )
        return self


# Where things lie and how they are shown decides nothing about the result, so it is no part of a run's identity.
_NOT_IDENTITY = {
    "name": True,
    "score": True,
    "data": {"root", "download"},
    "train": {"runs", "log_every", "checkpoint_every", "tracker", "cpu_threads"},
}


def identity(recipe: Recipe) -> dict[str, Any]:
    """Everything of a recipe that decides the trained weights, its teacher's recipe included."""
    # Without nulls, so that an option added to the schema later, off by default, leaves earlier runs what they are.
    content = recipe.model_dump(mode="json", exclude=_NOT_IDENTITY, exclude_none=True)  # type: ignore[arg-type]
    teacher = getattr(recipe.task, "teacher", None)
    if teacher is not None and teacher.recipe is not None:
        content["task"]["teacher"]["recipe"] = identity(teacher.recipe)
    return content


def identity_hash(recipe: Recipe) -> str:
    """A short name of :func:`identity`, the same on every machine."""
    return hashlib.sha256(json.dumps(identity(recipe), sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The dotted keys at which two dumped recipes differ, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))]
    return [] if old == new else [f"{path} was {_short(old)}, is {_short(new)}"]


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, defaults written out; what is left out is null, that is: off, or taken from its context."""
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False, width=110)


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read, complete and validate a recipe.

    Raises:
        UserError: with every problem of the file and of the overrides.
    """
    path = Path(path)
    raw = _complete(_read(path), path.parent)
    problems = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            problems.append(f"{override!r} is not an override; write key.path=value, for example train.epochs=5")
            continue
        try:
            _assign(raw, key.split("."), yaml.load(value, Loader=_Loader))
        except (yaml.YAMLError, UserError) as error:
            problems.append(f"{override!r} cannot be applied: {_first_line(error)}")
        raw = _complete(raw, path.parent)
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        problems += [_sentence(detail) for detail in error.errors()]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError(f"{path}: {count}\n" + "\n".join(f"  {problem}" for problem in problems))
    return recipe


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: ``3e-2`` is a number, ``no`` is a word, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tfTF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.\d+|\d+\.\d*|\d+(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+.0123456789"),
)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = difflib.get_close_matches(str(path), [str(file) for file in Path("recipes").rglob("*.yaml")], n=1)
        raise UserError(f"there is no recipe {path}" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        raw = yaml.load(path.read_text(), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:  # control characters are a ReaderError without a mark
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not readable as YAML: {_first_line(error)}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    return raw


def _complete(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write out what may be written short: an augmentation's preset, a teacher's recipe by its path.

    The teacher looks for data and runs where the student does, so one override moves both.
    """
    data, task = raw.get("data"), raw.get("task")
    if isinstance(data, dict) and isinstance(data.get("augment"), str):
        data["augment"] = {"preset": data["augment"]}
    teacher = task.get("teacher") if isinstance(task, dict) else None
    if not isinstance(teacher, dict):
        return raw
    if isinstance(teacher.get("recipe"), str):
        path = folder / teacher["recipe"]
        teacher["recipe"] = _complete(_read(path), path.parent)
    recipe = teacher.get("recipe")
    if isinstance(recipe, dict):
        for section, keys in {"data": ("root", "download"), "train": ("runs", "cpu_threads", "tracker")}.items():
            student, own = raw.get(section), recipe.get(section)
            if isinstance(student, dict) and isinstance(own, dict):
                own.update({key: student[key] for key in keys if key in student})
    return raw


def _assign(raw: dict[str, Any], path: list[str], value: Any) -> None:
    """Set one dotted key. Another ``kind`` takes along only the keys that it has too."""
    *parents, last = path
    place: Any = raw
    for depth, key in enumerate(parents):
        if isinstance(place, list):
            place = place[_index(place, key, path)]
        else:
            place = place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise UserError(f"{'.'.join(parents[: depth + 1])} is {_short(place)} and has no keys below it")
    if isinstance(place, list):
        place[_index(place, last, path)] = value
        return
    if path == ["task", "kind"] and value != place.get("kind"):
        allowed = _TASK_KEYS.get(value, set(place))
        for key in set(place) - allowed:
            del place[key]
    place[last] = copy.deepcopy(value)


def _index(place: list, key: str, path: list[str]) -> int:
    if not key.isdigit() or int(key) >= len(place):
        raise UserError(f"{'.'.join(path)}: {key!r} is no position in a list of {len(place)}")
    return int(key)


_TASK_KEYS = {
    get_args(kind.model_fields["kind"].annotation)[0]: set(kind.model_fields) for kind in get_args(get_args(Task)[0])
}


def suggest(given: Any, allowed: Any) -> str:
    """The end of a sentence about an unknown name: the nearest one if there is one, and all that are allowed."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (allowed: {', '.join(names)})"


def _sentence(detail: Any) -> str:
    """One problem found by pydantic, in our words: where, what was given, what is allowed."""
    place = [part for part in detail["loc"] if part not in _TAGS]
    path = ".".join(map(str, place))
    given, kind, context = detail.get("input"), detail["type"], detail.get("ctx", {})
    tell: dict[str, Callable[[], str]] = {
        "missing": lambda: "is missing",
        "extra_forbidden": lambda: f"is no key here{suggest(place[-1], _fields(detail['loc']))}",
        "literal_error": lambda: f"cannot be {_short(given)}{suggest(given, _quoted(context['expected']))}",
        "union_tag_invalid": lambda: (
            f"kind cannot be {context['tag']!r}{suggest(context['tag'], _quoted(context['expected_tags']))}"
        ),
        "union_tag_not_found": lambda: "has no kind",
        "value_error": lambda: ("" if isinstance(given, dict) else f"{_short(given)}: ") + str(context["error"]),
        "string_pattern_mismatch": lambda: f"cannot be {_short(given)}: use letters, digits, '.', '_' and '-'",
    }
    words = tell.get(kind, lambda: f"cannot be {_short(given)}: {detail['msg'][0].lower()}{detail['msg'][1:]}")()
    return f"{path}: {words}" if path else words


def _fields(location: tuple) -> list[str]:
    """The keys allowed where pydantic met an unknown one, found by walking the schema along the location."""
    model: Any = Recipe
    for part in location[:-1]:
        if part in _TAGS:
            model = _TAGS[part]
        elif isinstance(part, str) and part in model.model_fields:
            found = _sections(model.model_fields[part].annotation)
            model = found[0] if found else model
    return list(model.model_fields)


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _sections(inner)]


Teacher.model_rebuild()
_TAGS: dict[Any, type[Section]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind
    for union in (Task, Score)
    for kind in get_args(get_args(union)[0])
}


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _first_line(error: Exception) -> str:
    return getattr(error, "problem", None) or str(error).splitlines()[0]
