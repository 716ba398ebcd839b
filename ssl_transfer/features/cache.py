"""Features on disk under everything that decides them, so that they are computed once and never stale."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ssl_transfer.files import write_atomically


def weights_hash(model: nn.Module) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of all parameters and buffers with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def structure_hash(model: nn.Module) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of what ``model`` is made of and weights do not tell, such as strides.

    Batch norms are the same whether or not their statistics run over several processes.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        if isinstance(module, nn.Identity):
            continue
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            described = f"batch norm {module.eps}"
        else:  # repr would not do: an attention's number of heads is not in it
            plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
            settings = {key: plain[key] for key in sorted(plain) if key != "training" and not key.startswith("_")}
            described = f"{type(module).__qualname__} {settings}"
        digest.update(f"{name}: {described};".encode())
    return digest.hexdigest()[:16]


def read_features(folder: Path, key: Mapping[str, str]) -> Float32[Tensor, "n d"] | None:
    """The features kept under ``key``, memory-mapped, or None where there are none or the file is damaged."""
    try:
        with safe_open(_path(folder, key), framework="pt") as file:
            return file.get_tensor("features") if file.metadata() == dict(key) else None
    except (OSError, SafetensorError):
        return None


def write_features(folder: Path, key: Mapping[str, str], features: Float32[Tensor, "n d"]) -> None:
    """Keep ``features`` under ``key``."""
    content = {"features": features.cpu().contiguous()}
    write_atomically(_path(folder, key), lambda path: safetensors.torch.save_file(content, path, metadata=dict(key)))


def _path(folder: Path, key: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{digest}.safetensors"
