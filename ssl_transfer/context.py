"""Where a recipe runs: processes, device, threads, arithmetic, and the console of the main process."""

import ctypes
import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs, PartialState
from accelerate.utils import GradientAccumulationPlugin
from rich.console import Console
from torch import nn

from ssl_transfer import __version__, config
from ssl_transfer.arithmetic import GPU_CONVOLUTION, GPU_MATMUL, products_in, set_products
from ssl_transfer.distributed import Machine, from_main_process, meet, this_machine
from ssl_transfer.errors import UserError, machine_limits, user_mistakes
from ssl_transfer.launching import cores
from ssl_transfer.processes import (
    joining_processes,
    notices,
    processes_here,
    refuse_different,
    refuse_other_ways,
    refuse_together,
)
from ssl_transfer.watch import stop_watching, watch_others

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")
# How long processes wait for each other inside a collective. Those who are late for longer are waited for outside of
# one (distributed.meet), and those who are gone are noticed sooner (watch).
COLLECTIVE = timedelta(minutes=30)


@dataclass(frozen=True)
class Context:
    """Where a recipe runs.

    ``precision`` is the type that matrices are multiplied in, ``layout`` the memory layout of images and weights.
    ``console`` is that of the main process, None on the others; ``machine`` are the processes that share this one's.
    """

    accelerator: Accelerator
    precision: torch.dtype
    layout: torch.memory_format
    console: Console | None
    machine: Machine

    @classmethod
    def start(cls, recipe: config.Recipe) -> "Context":
        """Set up processes, threads and arithmetic as ``recipe`` asks for.

        Raises:
            UserError: the tracker that the recipe names is not installed, or the processes were started in a way that
                would not end as it was meant, or with different recipes or versions.
        """
        refuse_other_ways()
        # accelerate knows only the older name of this option, about which newer versions of torch warn.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        tracker = recipe.train.tracker
        if tracker is not None and find_spec(tracker) is None:
            raise UserError(f"train.tracker is {tracker}, which is not installed: pip install {tracker}")
        with joining_processes():
            accelerator = Accelerator(
                cpu=not torch.cuda.is_available(),
                # The recipe alone decides the arithmetic: these go before what `accelerate config` puts in the
                # environment.
                mixed_precision="no",
                dynamo_backend="no",
                gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
                log_with=tracker,
                project_dir=recipe.train.runs,
                kwargs_handlers=[
                    # Batch-norm statistics are equal on all processes (SyncBatchNorm): there is nothing to broadcast.
                    # Every step uses the same parameters, and gradients need no copy of their own.
                    DistributedDataParallelKwargs(
                        broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True
                    ),
                    InitProcessGroupKwargs(timeout=COLLECTIVE),
                ],
            )
        if accelerator.device.type == "cpu":
            take_threads(recipe.train.cpu_threads)
            keep_freed_memory()
        torch.backends.cudnn.benchmark = True
        # What readers warn of they warn of on every process: once is enough.
        logging.getLogger("ssl_transfer").setLevel(logging.WARNING if accelerator.is_main_process else logging.ERROR)
        set_products(_products(recipe), GPU_MATMUL, GPU_CONVOLUTION)
        console = Console(markup=False, emoji=False) if accelerator.is_main_process else None
        watch_others()
        refuse_different(recipe, versions())
        context = cls(accelerator, *_arithmetic(recipe, accelerator.device), console, this_machine())
        for notice in notices():
            context.say(notice)
        return context

    @contextmanager
    def arithmetic_of(self, recipe: config.Recipe) -> Iterator["Context"]:
        """The same processes with the arithmetic of another recipe, which the backends keep inside the block only."""
        precision, layout = _arithmetic(recipe, self.device)
        with products_in(_products(recipe), GPU_MATMUL, GPU_CONVOLUTION):
            yield replace(self, precision=precision, layout=layout)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def precision_name(self) -> str:
        """The type that matrices are multiplied in."""
        return str(self.precision).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        """A context in which matrices are multiplied in the precision of this run."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def place(self, module: M) -> M:
        """Move ``module`` to the device and into the memory layout of this run."""
        return module.to(self.device).to(memory_format=self.layout)

    def say(self, text: str) -> None:
        """Print one line, on the main process only."""
        if self.console is not None:
            self.console.print(text, highlight=False, soft_wrap=True)

    def on_main_process(self, do: Callable[[], Any]) -> Any:
        """Call ``do`` on the main process alone and return what it returns, on every process.

        Raises:
            UserError: ``do`` raised it on the main process; every process raises it then.
        """
        return on_main_process(do)

    def once_a_machine(self, do: Callable[[], T]) -> T | None:
        """Call ``do`` on the first process of each machine and return there what it returned, None on the others.

        The main process's machine comes first: where machines share a disk, the others find what it has downloaded,
        listed and checked. All wait until all machines are done.

        Raises:
            UserError: ``do`` refused on a machine; every process raises it then.
        """
        made = None
        for turn in range(min(2, self.machine.count)):
            refusal = None
            if self.machine.first and self.accelerator.is_main_process == (turn == 0):
                try:
                    with user_mistakes(), machine_limits():
                        made = do()
                except UserError as error:
                    refusal = error
            refuse_together(refusal)
        return made


def on_main_process(do: Callable[[], Any]) -> Any:
    """Call ``do`` on the main process alone, for as long as that takes, and return what it returns, on every process.

    Raises:
        UserError: ``do`` refused on the main process; every process raises it then.
    """

    def limited() -> Any:
        with user_mistakes(), machine_limits():
            return do()

    return from_main_process(limited, UserError)


def join_processes() -> PartialState:
    """Join the processes that a launcher started, for what is no training.

    Raises:
        UserError: the environment has a part of what a launcher sets, or the processes were not started to share work.
    """
    refuse_other_ways()
    with joining_processes():
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=COLLECTIVE)
    watch_others()
    if state.device.type == "cpu":
        take_threads()
    return state


def leave() -> None:
    """Leave the group of processes together, if there is one, at the end of a program."""
    stop_watching()
    meet()
    PartialState().destroy_process_group()


def device_name(device: torch.device) -> str:
    """The name of the GPU, or the architecture of the processor and the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({platform.machine()}, {threads} {'thread' if threads == 1 else 'threads'})"


def versions() -> dict[str, str]:
    """The versions of this program and of what it is built on."""
    packages = ("torch", "torchvision", "timm", "accelerate", "lightly", "scikit-learn")
    own = {"ssl-transfer": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}


def cores_of_process() -> int:
    """How many of the machine's cores each process may use."""
    return max(1, cores() // processes_here())


def take_threads(asked: int | None = None) -> None:
    """Let torch compute with as many threads as were ``asked`` for, else as OMP_NUM_THREADS says, else one a core.

    `accelerate launch` and torchrun set OMP_NUM_THREADS=1 where nobody did: from them a 1 is not taken for a wish.
    """
    said = os.environ.get("OMP_NUM_THREADS")
    by_launcher = said == "1" and not {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}.isdisjoint(os.environ)
    if asked is not None or said is None or by_launcher:
        torch.set_num_threads(asked or cores_of_process())


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


def _products(recipe: config.Recipe) -> str:
    """How the backends of a GPU multiply float32."""
    return "ieee" if recipe.train.precision == "full" else "tf32"


def _arithmetic(recipe: config.Recipe, device: torch.device) -> tuple[torch.dtype, torch.memory_format]:
    """The precision and the memory layout of ``recipe``."""
    # Convolutions are fastest in channels_last. But there torch's batch norm on the CPU, float32, is wrong in the 6th
    # digit and not in the 8th, which shows as a dependence on the number of processes.
    layout = torch.contiguous_format if recipe.train.precision == "full" else torch.channels_last
    return _precision(recipe.train.precision, device), layout


def _precision(asked: str, device: torch.device) -> torch.dtype:
    """bf16 where it is asked for, or where the hardware multiplies matrices in it."""
    if asked != "auto":
        return torch.bfloat16 if asked == "bf16" else torch.float32
    on_gpu = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    on_cpu = device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if on_gpu or on_cpu else torch.float32
