"""Operations on images fused by torch.compile."""

import os
import shutil
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


@cache
def compile_once(operation: Callable[..., Result]) -> Callable[..., Result]:
    """``operation`` in few passes over memory; compiled when first called, for any number of images but one."""
    compiled = torch.compile(operation, dynamic=True)
    # Detached from what they are slices of, whose shapes would call for compilations of their own.
    return lambda *tensors: compiled(*(tensor.detach() for tensor in tensors))


def require_compiler() -> None:
    """Refuse to go on where nothing could be compiled for the CPU, and there is no GPU.

    Raises:
        ValueError: without the C++ compiler that torch.compile looks for.
    """
    compiler = os.environ.get("CXX", "g++")
    if not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise ValueError(
            f"There is no C++ compiler {compiler} to compile with: install it, name another in CXX, or compile nothing."
        )
