"""Checkpoint files as named tensors. A file that is to run code is refused, never run."""

import argparse
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_WRAPPERS = re.compile(r"(^|\.)((module|_orig_mod)\.)+")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by dotted name, as ``state_dict.encoder_q.conv1.weight``.

    Reads safetensors, and what ``torch.save`` writes as long as it holds tensors, plain values and the settings of
    argparse (which SupContrast and DINO save beside the weights). The names ``module`` of (Distributed)DataParallel
    and ``_orig_mod`` of torch.compile are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no checkpoint, or needs pickle.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: give the path of a file that another tool saved")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = {_WRAPPERS.sub(r"\1", name): tensor for name, tensor in _flat(content)}
    if not tensors:
        raise ValueError(f"{path} holds no named weights: save the model's state_dict() and give that file")
    return tensors


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): it may be cut short, get it again") from None


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # torch's remarks about pickle protocols and old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = str(error)
    except Exception as error:  # cut files: EOFError, RuntimeError, OSError; other kinds of file: KeyError, IndexError
        reason = (str(error).strip() or "the file ends too early").splitlines()[0]
        if isinstance(error, LookupError | UnicodeDecodeError):
            reason = "it is not written by torch.save"
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason[:120]}): it may be cut short or of another kind"
        ) from None
    wanted = re.search(r"GLOBAL (\S+)", message)
    if wanted is None and _first_byte(path) != b"\x80":  # which is how a pickle begins
        raise ValueError(f"{path} cannot be read as a checkpoint: it may be cut short or of another kind") from None
    what = f"an object of {wanted[1]}" if wanted else "pickled objects"
    raise ValueError(
        f"{path} holds {what} beside its weights, which would run code to be read, so it was not opened: if you trust "
        "it, convert it where it was made by torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE) "
        "and give NEW_FILE"
    )


def _flat(content: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        return [(prefix, content)] if prefix else []
    if not isinstance(content, dict):
        return []
    return [
        found for key, value in content.items() for found in _flat(value, f"{prefix}.{key}" if prefix else str(key))
    ]


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)
