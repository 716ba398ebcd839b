"""Features on disk under everything that decides them, so that they are computed once and never stale."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float32
from torch import Tensor, nn

from ssl_transfer.files import CHECKSUM, json_hash
from ssl_transfer.models.checkpoint import read_tensors, tensors_hash, write_tensors

log = logging.getLogger(__name__)


def weights_hash(model: nn.Module) -> str:
    """The hash of all parameters and buffers (:func:`ssl_transfer.models.checkpoint.tensors_hash`)."""
    return tensors_hash(model.state_dict())


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
    """The features kept under ``key``, None where there are none or the file is damaged: they are computed again."""
    path = _path(folder, key)
    if not path.is_file():
        return None
    try:
        tensors, notes = read_tensors(path)
    except ValueError as error:
        log.warning("%s; its features are computed again", error)
        return None
    return tensors["features"] if path == _path(folder, notes) else None


def write_features(
    folder: Path, key: Mapping[str, str], features: Float32[Tensor, "n d"], *, must_keep: bool = False
) -> None:
    """Keep ``features`` under ``key``; where nothing can be written, say so and do without.

    Raises:
        OSError: nothing can be written, and they ``must_keep``.
    """
    try:
        write_tensors(_path(folder, key), {"features": features}, key)
    except OSError as error:
        if must_keep:
            raise
        log.warning("%s cannot be written (%s); the features are not kept", error.filename, error.strerror)


def _path(folder: Path, key: Mapping[str, str]) -> Path:
    own = {name: value for name, value in key.items() if name != CHECKSUM}  # a key may come from a file's header
    return folder / f"{json_hash(own)}.safetensors"
