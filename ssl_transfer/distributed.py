"""Rows of the global batch: gathering them with a gradient, and batch norm over all of them.

Every process holds the same number of rows. A relational loss sees all rows (``gather_rows``) and computes the terms
of its own (``own_rows``); the sum over processes is the loss of the global batch. Its gradient reaches every row, and
the gather's backward adds up what all processes found for a row and hands it to the process that owns it. DDP then
*averages* over processes, so whoever calls ``backward`` multiplies by the number of processes first.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = [
    "SyncBatchNorm",
    "gather_rows",
    "gather_shards",
    "own_rows",
    "rank",
    "shard",
    "single_process_order",
    "synchronize_batch_norm",
    "world_size",
]

T = TypeVar("T")
_LONG = timedelta(days=7)


def world_size() -> int:
    """How many processes train together; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; 0 outside a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty(len(gradient) // world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own


def gather_rows(rows: Shaped[Tensor, "n *shape"]) -> Shaped[Tensor, "n_global *shape"]:
    """Stack the rows of all processes in the order of their ranks, with a gradient (``accelerator.gather`` has none).

    The backward sums, over processes, what each found for a row, and returns to each process its own rows. All
    processes must hold equally many rows.
    """
    return rows if world_size() == 1 else _GatherRows.apply(rows)


def single_process_order(rows: int, views: int, device: torch.device) -> Int64[Tensor, " rows"]:
    """The places of ``rows`` gathered rows in the batch of one process, which has all first views, then all second.

    Gathered rows come process by process, each with its own first and second views. Losses do not mind; what is drawn
    for a row, or remembered of it, must not depend on how many processes there are.
    """
    return torch.arange(rows, device=device).view(views, world_size(), -1).transpose(0, 1).flatten()


def sum_over_processes(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum of what each process has, on every process; no gradient."""
    return values if world_size() == 1 else gather_rows(values.detach()[None]).sum(0)


def own_rows(rows: int) -> slice:
    """Where this process's ``rows`` stand in the result of :func:`gather_rows`."""
    return slice(rank() * rows, (rank() + 1) * rows)


def shard(length: int) -> slice:
    """This process's part of ``length`` rows that need not divide evenly: every row once, none twice."""
    size = -(-length // world_size())
    return slice(min(rank() * size, length), min((rank() + 1) * size, length))


def gather_shards(rows: Shaped[Tensor, "n *shape"], length: int) -> Shaped[Tensor, "length *shape"]:
    """Put the parts that :func:`shard` dealt out together again, in order, on every process; no gradient."""
    if world_size() == 1:
        return rows
    size = -(-length // world_size())
    padded = rows.new_zeros(size, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = rows.new_empty(world_size() * size, *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, padded)
    return gathered[:length]


def meet() -> None:
    """Wait until all processes are here, for as long as that takes.

    A collective gives up after minutes, since in training nobody is late by more. This is for where the others wait
    for what one process does alone, be it hours of scoring. Unlike a collective it lets signals be answered meanwhile.
    """
    if world_size() == 1:
        return
    from torch.distributed.distributed_c10d import _get_default_store

    store = _get_default_store()
    _count(store, "came to meet", at_once=False)
    # The main process, which may keep the store, goes last: nobody is left asking a store that is gone.
    _count(store, "went from a meeting", at_once=rank() > 0)


def _count(store: dist.Store, what: str, *, at_once: bool) -> None:
    """Count one more of ``what``, and unless ``at_once`` wait until all processes have done so equally often."""
    counted, pause = store.add(what, 1), 0.001
    complete = -(-counted // world_size()) * world_size()
    while counted < complete and not at_once:
        time.sleep(pause)
        pause = min(2 * pause, 0.25)
        counted = store.add(what, 0)


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let the main process do what is inside the block, for as long as that takes, before all others do it.

    For what downloads or writes files that the others then find.
    """
    if rank() > 0:
        meet()
    yield
    if rank() == 0:
        meet()


def from_main_process(do: Callable[[], T], *errors: type[Exception]) -> T:
    """Call ``do`` on the main process alone, for as long as that takes, and return what it returns on every process.

    Raises:
        Exception: one of ``errors``, which ``do`` raised on the main process, on every process.
    """
    if world_size() == 1:
        return do()
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = do()
        except errors as error:
            outcome[1] = error
    meet()
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def this_machine() -> "Machine":
    """The processes that share this one's machine; to be asked for on all processes, and known after that."""
    return _machine_of(dist.group.WORLD if world_size() > 1 else None)


@lru_cache(maxsize=1)
def _machine_of(everyone: Any) -> "Machine":
    return Machine()


class Machine:
    """The processes of this run that share a machine with this one, and so its disk; to be made on all processes.

    Attributes:
        first: whether this process is the first of its machine.
        with_main: whether the main process is on it.
        count: how many machines there are.
    """

    def __init__(self) -> None:
        locals_ = [0]
        if world_size() > 1:
            locals_ = [None] * world_size()  # type: ignore[list-item]
            dist.all_gather_object(locals_, int(os.environ.get("LOCAL_RANK", "0")))
        firsts = [number for number, local in enumerate(locals_) if local == 0]
        self.count, self.first = len(firsts), rank() in firsts
        self.with_main = rank() < [*firsts[1:], len(locals_)][0]
        self._group: Any = None
        for first, after in zip(firsts, [*firsts[1:], len(locals_)], strict=True):
            if after - first > 1:  # every process takes part in making every group
                group = dist.new_group(range(first, after), timeout=_LONG, backend="gloo")
                if first <= rank() < after:
                    self._group, self._source = group, first

    @property
    def alone(self) -> bool:
        """Whether no other process of the run is on this machine."""
        return self._group is None

    def share(self, value: T | None) -> T:
        """What the first process of the machine gives, on all of its processes."""
        shared = [value]
        if self._group is not None:
            dist.broadcast_object_list(shared, self._source, group=self._group)
        return shared[0]  # type: ignore[return-value]

    def share_tensor(self, value: Shaped[Tensor, "*shape"]) -> None:
        """Fill ``value``, a tensor on the CPU, with what the first process of the machine has in it."""
        if self._group is not None:
            for part in value.view(-1).split(2**26):
                dist.broadcast(part, self._source, group=self._group)


def everyone_says(sentence: str, *, within: float = 10.0) -> bool:
    """Whether all processes call this with the same ``sentence``, within ``within`` seconds of each other.

    Not a collective: where one process has failed alone, the others wait in a collective of their own. A sentence that
    was said stays said.
    """
    if world_size() == 1:
        return True
    from torch.distributed.distributed_c10d import _get_default_store

    store = _get_default_store()
    store.set(f"{sentence} {rank()}", "said")
    try:
        store.wait([f"{sentence} {other}" for other in range(world_size())], timedelta(seconds=within))
    except RuntimeError:  # nobody answers, or who kept the store is gone
        return False
    return True


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes on any backend.

    Takes over the parameters, buffers and (for timm's fused layers) the activation of ``norm``, under the same names,
    so state dicts fit both ways. Every process must hold equally many values per channel. torch's own layer allows
    for unequal ones, for which the host waits for the device in every layer, and refuses CPU tensors; its kernels are
    used on a GPU. There is one collective for each pass, forward and backward.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self.training = norm.training
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  (torch's name)
        if input.ndim < 2:
            raise ValueError(f"batch norm takes (n, channels, ...), got {tuple(input.shape)}")

    def forward(self, input: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:  # noqa: A002
        """Normalize by the statistics of all processes in training, by the running ones in evaluation."""
        if not (self.training or self.running_mean is None):
            return self.act(self.drop(super().forward(input)))
        if input.is_cuda:
            return self.act(self.drop(self._by_kernels(input)))
        others = [axis for axis in range(input.ndim) if axis != 1]
        precise = input.to(torch.promote_types(input.dtype, torch.float32))
        variance, mean = torch.var_mean(precise, dim=others, correction=0)
        variances, means = gather_rows(torch.stack([variance, mean])[None]).unbind(1)
        # Equal counts per process: the variance of the whole is the mean variance plus the variance of the means.
        variance = variances.mean(0) + means.var(0, correction=0)
        mean = means.mean(0)
        if self.training and self.running_mean is not None:
            self._track(mean.detach(), variance.detach(), count=world_size() * input.numel() // input.shape[1])
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (1, -1) + (1,) * (input.ndim - 2)
        normalized = (input * scale.view(shape) + shift.view(shape)).to(input.dtype)
        return self.act(self.drop(normalized))

    def _by_kernels(self, input: Tensor) -> Tensor:  # noqa: A002
        running_mean, running_var, momentum = None, None, 0.0
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            running_mean, running_var = self.running_mean, self.running_var
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        return _Normalized.apply(input, self.weight, self.bias, running_mean, running_var, self.eps, momentum)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_((variance * (count / max(count - 1, 1))).to(self.running_var.dtype), weight)


class _Normalized(torch.autograd.Function):
    """torch's kernels of synchronized batch norm, told that every process holds equally many values per channel."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,  # noqa: A002
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
    ) -> Tensor:
        input = _dense(input)  # noqa: A001
        own = torch.stack(torch.batch_norm_stats(input, eps))
        means, deviations = gather_rows(own[None]).unbind(1)
        counts = torch.full((len(means),), input.numel() // input.shape[1], dtype=own.dtype, device=own.device)
        mean, deviation = torch.batch_norm_gather_stats_with_counts(
            input, means.contiguous(), deviations.contiguous(), running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(input, weight, mean, deviation, counts.int())
        return torch.batch_norm_elemt(input, weight, bias, mean, deviation, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, deviation, counts = ctx.saved_tensors  # noqa: A001
        gradient, wanted = _dense(gradient), ctx.needs_input_grad
        *sums, of_weight, of_bias = torch.batch_norm_backward_reduce(
            gradient, input, mean, deviation, weight, *wanted[:3]
        )
        of_input = None
        if wanted[0]:
            total = torch.stack(sums)
            if world_size() > 1:
                dist.all_reduce(total)
            by_gradient, by_product = total.unbind()
            of_input = torch.batch_norm_backward_elemt(
                gradient, input, mean, deviation, weight, by_gradient, by_product, counts
            )
        return of_input, of_weight if wanted[1] else None, of_bias if wanted[2] else None, None, None, None, None


def _dense(images: Tensor) -> Tensor:
    """``images`` in one of the two layouts that the kernels know."""
    if images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last):
        return images
    return images.contiguous()


def synchronize_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every batch norm below ``module`` by :class:`SyncBatchNorm`, whose statistics run over all processes.

    Parameters are shared with the replaced layers, not copied.
    """
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return SyncBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, synchronize_batch_norm(child))
    return module
