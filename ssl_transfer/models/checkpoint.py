"""Weights on disk: the model a run ends with, and the state it continues from. Nothing here ever unpickles code."""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import ConfigDict, PositiveInt, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from ssl_transfer.files import CHECKSUM, read_json, verified, with_checksum, write_atomically, write_json
from ssl_transfer.models.backbones import create_backbone
from ssl_transfer.models.embedding import EmbeddingModel
from ssl_transfer.models.heads import ClassifierHead, EmbeddingHead, LastNorm, ProjectionHead

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # for what is read from a file


@dataclass(frozen=True)
class HeadSpec:
    """What sits on the features: an embedding, a classifier or a projection (:mod:`ssl_transfer.models.heads`).

    ``dim`` is its width. The others are a projection's: the width of its hidden layers (None: that of the features) and
    what :class:`ssl_transfer.models.ProjectionHead` takes by the same names.
    """

    __pydantic_config__ = _STRICT

    kind: Literal["embedding", "projection", "classifier"]
    dim: PositiveInt
    hidden_dim: PositiveInt | None = None
    num_layers: PositiveInt = 2
    batch_norm: bool = True
    last_norm: LastNorm = "affine"


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a model again, weights apart; ``config.json`` holds it."""

    __pydantic_config__ = _STRICT

    backbone: str
    stem: Literal["default", "cifar"]
    in_chans: PositiveInt
    image_size: PositiveInt
    mean: tuple[float, ...]
    std: tuple[float, ...]
    drop_path: float = 0.0
    pooling: str | None = None
    head: HeadSpec | None = None


_SPEC, _CLASSIFIER = TypeAdapter(ModelSpec), TypeAdapter(str | None)


def build_model(spec: ModelSpec, *, pretrained: bool = False) -> EmbeddingModel:
    """Build the model ``spec`` describes, with fresh (or timm's pretrained) weights.

    Raises:
        ValueError: there is no such backbone, or it cannot take such images.
    """
    backbone = create_backbone(
        spec.backbone,
        pretrained=pretrained,
        stem=spec.stem,
        in_chans=spec.in_chans,
        image_size=spec.image_size,
        mean=spec.mean,
        std=spec.std,
        drop_path=spec.drop_path,
        pooling=spec.pooling,
    )
    head: EmbeddingHead | ProjectionHead | ClassifierHead | None = None
    if spec.head is not None and spec.head.kind == "embedding":
        head = EmbeddingHead(backbone.num_features, embedding_dim=spec.head.dim)
    elif spec.head is not None and spec.head.kind == "classifier":
        head = ClassifierHead(backbone.num_features, num_classes=spec.head.dim)
    elif spec.head is not None:
        head = ProjectionHead(
            backbone.num_features,
            hidden_dim=spec.head.hidden_dim or backbone.num_features,
            embedding_dim=spec.head.dim,
            num_layers=spec.head.num_layers,
            batch_norm=spec.head.batch_norm,
            last_norm=spec.head.last_norm,
        )
    return EmbeddingModel(backbone, head)


def save_model(folder: Path, model: nn.Module, spec: ModelSpec) -> None:
    """Write ``model.safetensors``, which carries a hash of its weights, and ``config.json``."""
    write_tensors(folder / "model.safetensors", model.state_dict())
    write_json(folder / "config.json", with_checksum(asdict(spec)))


def load_model(folder: Path | str) -> tuple[EmbeddingModel, ModelSpec]:
    """The model that :func:`save_model` or ``ssl-transfer export`` wrote, on the CPU and in eval mode.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the weights are not of the architecture.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no trained model: {name} is missing: run its recipe to the end, or bring the file back"
            )
    try:
        content = read_json(folder / "config.json")
        exported = content.get("ssl_transfer")  # an exported folder has timm's keys beside it
        own = verified(exported or content)
        spec = _SPEC.validate_json(json.dumps(own["model"] if exported else own))
        classifier = _CLASSIFIER.validate_python(exported.get("classifier")) if exported else None
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            why = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()[:3])
        raise ValueError(
            f"{folder / 'config.json'} does not describe a model of this program ({why}): bring back a copy of it"
        ) from None
    model = build_model(spec)
    weights, _ = read_tensors(folder / "model.safetensors")
    if exported:
        weights = _own_names(weights, folder, spec, classifier)
    _load_exactly(model, weights, folder / "model.safetensors")
    return model.eval(), spec


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with a hash of its content beside the ``notes`` in its header."""
    own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {**(notes or {}), CHECKSUM: tensors_hash(own)}
    write_atomically(path, lambda temporary: safetensors.torch.save_file(own, temporary, metadata=metadata))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and the notes in its header.

    Raises:
        ValueError: the file cannot be read, or its content is not what was written. Files without a hash, of other
            programs and earlier versions, are taken as they are.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); it may be cut short") from None
    expected = notes.get(CHECKSUM)
    if expected not in (None, tensors_hash(tensors)):
        raise ValueError(f"{path} is damaged: its content is not what was written; bring back a copy or make it again")
    return tensors, {name: note for name, note in notes.items() if name != CHECKSUM}


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of tensors with their names, types and shapes, in order of names."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _own_names(
    weights: dict[str, torch.Tensor], folder: Path, spec: ModelSpec, classifier: str | None
) -> dict[str, torch.Tensor]:
    """Our names for the weights of an exported folder, where the network's are timm's own.

    The head's are those of timm's ``classifier``, or in a file beside, since timm refuses names that it does not know.
    """
    own = {f"backbone.{name}": torch.tensor(getattr(spec, name)).view(-1, 1, 1) for name in ("mean", "std")}
    if spec.head is not None and classifier is None:
        head, _ = read_tensors(folder / "head" / "model.safetensors")
        own |= {f"head.{name}": value for name, value in head.items()}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        own[f"head.linear.{kind}" if layer == classifier else f"backbone.network.{name}"] = value
    return own


def _load_exactly(model: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    own = model.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape]
    if missing or extra or shapes:
        found = [
            f"{len(keys)} {what} (first: {keys[0]})"
            for what, keys in (
                ("missing", missing),
                ("unexpected", extra),
                ("of another shape", sorted(shapes)),
            )
            if keys
        ]
        raise ValueError(f"{path} does not fit the model that config.json describes: {', '.join(found)} weights")
    model.load_state_dict(weights)


def save_state(path: Path, step: int, seconds: float, parts: Mapping[str, Any]) -> None:
    """Write everything a run continues from: the step and the state dict of each part. No random state, by design."""
    state = {
        "step": step,
        "seconds": seconds,
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def read_state(path: Path) -> dict[str, Any]:
    """What :func:`save_state` wrote, its tensors on the CPU, for :func:`restore_state`.

    Raises:
        ValueError: the file is damaged.
    """
    with _continued(path):
        with zipfile.ZipFile(path) as archive:  # torch writes a checksum for each tensor and reads none
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"the checksum of {broken} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)


def restore_state(state: Mapping[str, Any], parts: Mapping[str, Any], path: Path) -> tuple[int, float]:
    """Restore what was read from ``path``; returns the step to continue at and the seconds spent so far.

    Raises:
        ValueError: it is the state of something else.
    """
    with _continued(path):
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return state["step"], state["seconds"]


@contextmanager
def _continued(path: Path) -> Iterator[None]:
    try:
        yield
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, KeyError, ValueError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} cannot be continued from ({reason}); remove it to start this run again") from None
