"""Where a recipe runs: processes, device, threads, arithmetic, and the console of the main process."""

import ctypes
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list
from rich.console import Console
from torch import nn

from ssl_transfer import __version__, config
from ssl_transfer.errors import UserError

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Context:
    """Where a recipe runs: the processes, their device, their arithmetic, and the console of the main one."""

    accelerator: Accelerator
    precision: torch.dtype
    layout: torch.memory_format
    console: Console | None

    @classmethod
    def start(cls, recipe: config.Recipe) -> "Context":
        """Set up processes, threads and arithmetic for ``recipe``."""
        # accelerate knows only the older name of this option, about which newer versions of torch warn.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        tracker = recipe.train.tracker
        if tracker is not None and find_spec(tracker) is None:
            raise UserError(f"train.tracker is {tracker}, which is not installed: pip install {tracker}")
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            log_with=tracker,
            project_dir=recipe.train.runs,
            # Batch-norm statistics are equal on all processes (SyncBatchNorm), so there is nothing to broadcast.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        if accelerator.device.type == "cpu":
            # `accelerate launch` without a configuration sets OMP_NUM_THREADS=1, a small part of the machine.
            torch.set_num_threads(recipe.train.cpu_threads or cores_of_process())
            keep_freed_memory()
        exact = recipe.train.precision == "full"
        for backend in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # type: ignore[attr-defined]
            backend.fp32_precision = "ieee" if exact else "tf32"
        torch.backends.cudnn.benchmark = True
        return cls(
            accelerator,
            _precision(recipe.train.precision, accelerator.device),
            # Convolutions are fastest in channels_last. But there torch's batch norm on the CPU, float32, is wrong in
            # the 6th digit and not in the 8th, which shows as a dependence on the number of processes.
            torch.contiguous_format if exact else torch.channels_last,
            Console() if accelerator.is_main_process else None,
        )

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def precision_name(self) -> str:
        """The type that matrices are multiplied in."""
        return str(self.precision).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        """Multiply matrices in the precision of this run."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def place(self, module: M) -> M:
        """``module`` on the device, in the memory layout of this run."""
        return module.to(self.device).to(memory_format=self.layout)

    def say(self, text: str) -> None:
        """One line from the main process."""
        if self.console is not None:
            self.console.print(text, highlight=False, soft_wrap=True)

    def on_main(self, do: Callable[[], Any]) -> Any:
        """What ``do`` returns or refuses on the main process, on every process."""
        outcome: list[Any] = [None, None]
        if self.accelerator.is_main_process:
            try:
                outcome[0] = do()
            except UserError as error:
                outcome[1] = str(error)
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise UserError(outcome[1])
        return outcome[0]


def device_name(device: torch.device) -> str:
    """What a person calls the device: the GPU's name, or the processor's kind and the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def versions() -> dict[str, str]:
    """The versions of this program and of what it is built on."""
    packages = ("torch", "torchvision", "timm", "accelerate", "lightly", "scikit-learn")
    own = {"ssl-transfer": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}


def processes_here() -> int:
    """How many processes of this run share the machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cores_of_process() -> int:
    """Each process's part of the machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes_here())


def keep_freed_memory() -> None:
    """Let glibc keep the activations that a step frees for the next one, where there is glibc.

    By default it returns blocks of this size to the system, and each step pays for fresh, zeroed pages: a fifth of the
    time of a training step of `tiny_convnet` at batch 1,024.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def _precision(asked: str, device: torch.device) -> torch.dtype:
    """bf16 where it is asked for, or where the hardware multiplies matrices in it."""
    if asked != "auto":
        return torch.bfloat16 if asked == "bf16" else torch.float32
    on_gpu = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    on_cpu = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if on_gpu or on_cpu else torch.float32
