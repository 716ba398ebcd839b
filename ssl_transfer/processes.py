"""How a run was started: refused where it would not be the run that was meant, and the same on all processes."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
import torch.distributed as dist

from ssl_transfer import config
from ssl_transfer.distributed import meet, world_size
from ssl_transfer.errors import UserError
from ssl_transfer.launching import wrong_under_srun

_OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

# What `accelerate config` may ask for and a run cannot be under, by the variable that says so.
_OTHER_WAYS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or pipeline parallelism",
}
# Where things lie and what a machine has: these may differ between machines.
_OWN = {"root", "runs", "workers", "cpu_threads", "download"}


def refuse_other_ways() -> None:
    """Refuse to start in a way that would end otherwise than it was meant.

    Raises:
        UserError: accelerate is configured to split the model, or ``srun`` started several tasks without a launcher.
    """
    for variable, way in _OTHER_WAYS.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise UserError(
                f"accelerate is configured for {way}, which divides a model among the processes; here each has all of "
                "it (DistributedDataParallel): start with accelerate launch --multi_gpu, or configure accelerate so"
            )
    if wrong := wrong_under_srun():
        raise UserError(wrong)


def notices() -> Iterator[str]:
    """What the machine has, or the launcher was asked for, and this run does not use, a line each."""
    if torch.backends.mps.is_available():
        yield "this run computes on the CPU: Apple's GPU (MPS) is not used"
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        yield f"accelerate's mixed precision {precision} is not used: the recipe's train.precision decides"
    asked = _processes_asked_for()
    if asked is not None and asked > 1 and world_size() == 1:
        yield (
            f"accelerate launch was asked for {asked} processes and started one, which does all the work; for several, "
            "also on CPUs, leave out --cpu and give --multi_gpu"
        )


def _processes_asked_for() -> int | None:
    """The number in the command line of the ``accelerate launch`` that started this process, if one did."""
    try:
        parent = psutil.Process().parent()
        words = [] if parent is None else parent.cmdline()
    except psutil.Error:
        return None
    if "launch" not in words and "accelerate.commands.launch" not in words:
        return None
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value if equals else words[place + 1]
            return int(value) if value.isdecimal() else None
    return None


def refuse_different(recipe: config.Recipe, versions: Mapping[str, str]) -> None:
    """Refuse processes that were started with different recipes, or have different versions of this program.

    Raises:
        UserError: on every process; names the first one that differs, and in what.
    """
    own = {"recipe": _shared(recipe.model_dump(mode="json")), "version": dict(versions)}
    first, host, number, other, other_host = _first_that_differs(own)
    if other is not None:
        changes = config.differences(first["recipe"], other["recipe"])
        changes += [f"version of {line}" for line in config.differences(first["version"], other["version"])]
        raise UserError(
            f"process {number} on {other_host} was not started as process 0 on {host}: {'; '.join(changes[:3])}: use "
            "the same recipe, overrides and versions on every machine"
        )


def refuse_other_images(what: str, count: int, fingerprint: str | None) -> None:
    """Refuse to go on where machines read different images; a process without a ``fingerprint`` has another's.

    Raises:
        UserError: on every process, with both counts.
    """
    first, host, number, other, other_host = _first_that_differs(None if fingerprint is None else [count, fingerprint])
    if other is not None:
        how = (
            f"{other[0]} images and process 0 on {host} {first[0]}"
            if other[0] != first[0]
            else f"{other[0]} images as process 0 on {host} does, but of other content, names or labels"
        )
        raise UserError(
            f"process {number} on {other_host} reads for {what} {how}: bring the same files to every machine"
        )


def refuse_together(refusal: UserError | None) -> None:
    """Raise on every process what one of them refused, once all have come here, however late.

    Raises:
        UserError: the first refusal; where it is not the main process's, with the machine that it is of.
    """
    if world_size() == 1:
        if refusal is not None:
            raise refusal
        return
    meet()
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, (refusal, socket.gethostname()))
    for number, (found, host) in enumerate(everyone):
        if found is not None:
            raise found if number == 0 else type(found)(f"process {number} on {host}: {found}")


def _first_that_differs(own: Any) -> tuple[Any, str, int, Any, str]:
    """What the main process has, its host; the first process that has something else, what it has, its host."""
    everyone: list[Any] = [(own, socket.gethostname())]
    if world_size() > 1:
        everyone = [None] * world_size()
        dist.all_gather_object(everyone, (own, socket.gethostname()))
    first, host = everyone[0]
    for number, (other, other_host) in enumerate(everyone):
        if other is not None and other != first:
            return first, host, number, other, other_host
    return first, host, 0, None, host


def _shared(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _shared(value) for key, value in content.items() if key not in _OWN}
    return content


@contextmanager
def joining_processes() -> Iterator[None]:
    """Around what reads from the environment which processes train together.

    Raises:
        UserError: the environment has a part of what a launcher sets, perhaps left by something else.
    """
    given = " ".join(f"{name}={os.environ[name]}" for name in _OF_LAUNCHERS if name in os.environ)  # accelerate adds
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the environment speaks of several processes ({given or 'in variables of MPI'}), which cannot be joined: "
            f"start them with accelerate launch, or unset these variables ({str(error).splitlines()[0]})"
        ) from error


def processes_here() -> int:
    """How many processes of this run share the machine."""
    with joining_processes():
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
