"""Checkpoint files as named tensors. A file that is to run code is refused, never run."""

import argparse
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_transfer.models.foreign.unreadable import explain, shortened

# What DataParallel, torch.compile, FSDP, activation checkpointing and Lightning Fabric put around a network.
_WRAPPERS = re.compile(
    r"(^|\.)((module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)(\.|$))+"
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file by dotted name, as ``state_dict.encoder_q.conv1.weight``, and what it says of itself."""

    tensors: dict[str, Tensor]
    arch: str | None  # the name of the network in the tool that saved it, which many tools write beside the weights


def read_checkpoint(path: Path) -> Checkpoint:
    """Everything in a checkpoint that has a name, on the CPU.

    Reads safetensors, and what ``torch.save`` writes as long as it holds tensors, plain values and the settings of
    argparse (which SupContrast and DINO save beside the weights). Entries of lists are named by their number. The names
    that wrappers add are left out, see :func:`unwrapped`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no checkpoint, or needs pickle.
    """
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder: give the file with the weights, such as model.safetensors in it")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: give the path of a file that another tool saved")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    named = dict(_flat(content))
    if not named:
        raise ValueError(f"{path} holds no named weights: save the model's state_dict() and give that file")
    for name, tensor in named.items():
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            kind = "without content" if tensor.is_meta else "quantized" if tensor.is_quantized else "sparse"
            raise ValueError(f"{path} has {name} as a tensor that is {kind}: save the network's plain weights")
    short = {name: unwrapped(name) for name in named}
    uses = Counter(short.values())
    tensors = {short[name] if uses[short[name]] == 1 else name: tensor for name, tensor in named.items()}
    return Checkpoint(tensors, _arch(content))


def unwrapped(name: str) -> str:
    """A dotted name without the parts that wrappers add: ``module`` of DataParallel, ``_orig_mod`` of torch.compile."""
    return _WRAPPERS.sub(r"\1", name)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({shortened(error)}): it may be cut short, get it again") from None


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # torch's remarks about pickle protocols and old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # refused pickles, cut files (EOFError, RuntimeError), other kinds of file (KeyError)
        raise ValueError(explain(path, error)) from None


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        if prefix:
            yield prefix, content
        return
    numbered = enumerate(content) if isinstance(content, list | tuple) else ()
    entries = content.items() if isinstance(content, dict) else numbered
    for key, value in entries:
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))


def _arch(content: Any) -> str | None:
    """What ``arch`` says, beside the weights or among the settings of argparse."""
    if not isinstance(content, dict):
        return None
    said = content.get("arch", getattr(content.get("args"), "arch", None))
    return said if isinstance(said, str) else None
