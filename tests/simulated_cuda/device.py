"""A pretended CUDA device: what would fail on a GPU fails here, and what the host would wait for is counted.

A tensor "on cuda" is a CPU tensor whose storage is marked. ``device``, ``to``, ``cpu``, ``numpy``, ``tolist``, pinning
and functions with ``device=`` honor the mark, and a dispatch mode carries it from the inputs of an operation to its
results. It refuses operations on marked and unmarked tensors together, except those that CUDA allows; it counts kernel
launches, operations on the host, and waits of the host for the device, with the line of ssl_transfer that asked; and it
notes operations without a CUDA kernel, of which the CUDA build of torch knows on any machine. Numbers are real: so are
autograd, optimizers, and DDP over gloo. It counts; it does not time.

Everything is patched for the life of the process, so it is used in processes of its own.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


class DeviceError(RuntimeError):
    """What a GPU would refuse."""


@dataclass
class Counts:
    """What happened since :meth:`clear`; each counter by the name of the operation and the line that asked for it."""

    launches: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)
    on_host: Counter = field(default_factory=Counter)
    collectives: Counter = field(default_factory=Counter)
    without_kernel: set = field(default_factory=set)

    def clear(self) -> None:
        for counter in vars(self).values():
            counter.clear()


counts = Counts()

# --- marks ---

# By storage. "either": a tensor that torch made by itself, such as a zero in a backward pass, perhaps on the device.
_marks: dict[int, tuple[StorageWeakRef, str]] = {}


def mark_of(tensor: Tensor) -> str | None:
    try:
        found = _marks.get(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # a tensor without a storage
        return None
    return None if found is None or found[0].expired() else found[1]


def mark(tensor: Any, as_what: str | None = "cuda") -> Any:
    if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
        storage = tensor.untyped_storage()
        if as_what is None:
            _marks.pop(storage._cdata, None)
        else:
            _marks[storage._cdata] = StorageWeakRef(storage), as_what
        if len(_marks) > 20_000:
            for key in [key for key, (reference, _) in _marks.items() if reference.expired()]:
                del _marks[key]
    return tensor


def is_marked(tensor: Tensor) -> bool:
    return mark_of(tensor) == "cuda"


# --- operations ---

_NO_LAUNCH = {
    *("detach", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias", "set_", "_pin_memory", "is_pinned"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "is_same_size", "record_stream"),
    *("resize_", "resize_as_"),
}
_WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "_unique"),
    *("bincount", "equal", "is_nonzero", "histc", "multinomial", "repeat_interleave", "_linalg_check_errors"),
}
_INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
_COPIES = {"copy_", "_copy_from", "_foreach_copy_"}
_KERNEL_KEYS = (
    *("CUDA", "CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"),
    "BackendSelect",
)


def _has_kernel(name: str) -> bool:
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in _KERNEL_KEYS)


def asked_by() -> str:
    """The innermost line of ssl_transfer on the stack, and the library between."""
    frame, library = sys._getframe(), None
    while frame is not None:
        file = frame.f_code.co_filename
        if "/ssl_transfer/" in file:
            return f"{file.split('/ssl_transfer/')[-1]}:{frame.f_lineno}{f' by {library}' if library else ''}"
        if library is None and "/site-packages/" in file and "/torch/" not in file:
            library = file.split("/site-packages/")[1].split("/")[0]
        frame = frame.f_back
    return library or "backward"


_refusing_waits = False  # torch.cuda.set_sync_debug_mode


def wait(what: str) -> None:
    if _refusing_waits:
        raise RuntimeError(f"called a synchronizing CUDA operation: {what} in {asked_by()}")
    counts.waits[f"{what} in {asked_by()}"] += 1


def _refuse_waits(mode: str) -> None:
    global _refusing_waits
    _refusing_waits = mode == "error"


def _sums(gradient: Tensor, images: Tensor, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor, list, list]:
    others, shape = [axis for axis in range(images.ndim) if axis != 1], [1, -1] + [1] * (images.ndim - 2)
    centered = images.to(mean.dtype) - mean.view(shape)
    return centered, gradient.to(mean.dtype), others, shape


def _stats(images: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    others = [axis for axis in range(images.ndim) if axis != 1]
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=others, correction=0)
    return mean, (variance + eps).rsqrt()


def _gather_stats(images, means, deviations, running_mean, running_var, momentum, eps, rows):
    share, total = (rows / rows.sum())[:, None], rows.sum()
    mean = (means * share).sum(0)
    variance = ((deviations**-2 - eps + (means - mean) ** 2) * share).sum(0)
    if running_mean is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * total / (total - 1), momentum)
    return mean, (variance + eps).rsqrt()


def _normalize(images, weight, bias, mean, deviation, eps):
    centered, _, _, shape = _sums(images, images, mean, deviation)
    normal = centered * deviation.view(shape)
    return (normal if weight is None else normal * weight.view(shape) + bias.view(shape)).to(images.dtype)


def _reduce(gradient, images, mean, deviation, weight, *wanted):
    centered, gradient, others, _ = _sums(gradient, images, mean, deviation)
    total, product = gradient.sum(others), (gradient * centered).sum(others)
    return total, product, product * deviation, total.clone()


def _input_gradient(gradient, images, mean, deviation, weight, total, product, rows):
    centered, wide, _, shape = _sums(gradient, images, mean, deviation)
    count = rows.sum()
    wide = wide - (total / count).view(shape) - centered * (deviation**2 * product / count).view(shape)
    return (wide * (deviation if weight is None else deviation * weight).view(shape)).to(images.dtype)


# Kernels that there are on CUDA alone.
_CUDA_ONLY: dict[str, Callable] = {
    "batch_norm_stats": _stats,
    "batch_norm_gather_stats_with_counts": _gather_stats,
    "batch_norm_elemt": _normalize,
    "batch_norm_backward_reduce": _reduce,
    "batch_norm_backward_elemt": _input_gradient,
}


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        space, name = func._schema.name.split("::")
        if torch.is_inference_mode_enabled() and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        ):
            with self:  # in inference mode composite operations arrive whole
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        marks = [mark_of(tensor) for tensor in given]
        launches = not getattr(func, "is_view", False) and name not in _NO_LAUNCH
        if "cuda" in marks:
            self._check(space, name, args, given, marks)
            self._count(func, space, name, args, kwargs, launches)
        elif launches:
            counts.on_host[name] += 1
        result = _CUDA_ONLY[name](*args) if name in _CUDA_ONLY else func(*args, **kwargs)
        made_by_torch = not given and _Functions.current not in _FACTORIES
        inherited = "cuda" if "cuda" in marks else "either" if "either" in marks or made_by_torch else None
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not any(leaf is tensor for tensor in given) and mark_of(leaf) != "cuda":
                if inherited == "cuda" or not getattr(func, "is_view", False):
                    mark(leaf, inherited)
        if "cuda" in marks:
            for tensor, of_it in zip(given, marks, strict=True):
                if of_it == "either":
                    mark(tensor)
        return result

    def _check(self, space: str, name: str, args: Any, given: list[Tensor], marks: list[str | None]) -> None:
        """Refuse tensors on both devices, or count the copy that CUDA makes of them."""
        on_cpu = [tensor for tensor, of_it in zip(given, marks, strict=True) if of_it is None and tensor.ndim > 0]
        if space != "aten" or not on_cpu and name not in _COPIES:
            return
        if name in _COPIES:
            if on_cpu or (isinstance(args[0], Tensor) and mark_of(args[0]) is None):
                wait("a blocking copy")
        elif name in _INDEXING and any(args[0] is tensor for tensor in on_cpu):
            raise DeviceError(f"{name}: a tensor on the CPU is indexed by one on cuda in {asked_by()}")
        elif name in _INDEXING and not (len(args) > 2 and any(args[2] is tensor for tensor in on_cpu)):
            wait("an index from pageable memory")
        else:
            shapes = [tuple(tensor.shape) for tensor in on_cpu]
            raise DeviceError(f"{name}: tensors on cuda and on the CPU {shapes} in {asked_by()}")

    def _count(self, func: Any, space: str, name: str, args: Any, kwargs: Any, launches: bool) -> None:
        if not _has_kernel(func.name()):
            counts.without_kernel.add(f"{func.name()} in {asked_by()}")
        if name in _WAITS and kwargs.get("output_size") is None:
            wait(name)
        if name in _INDEXING:
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            fills = name.startswith("index_put") and args[2].numel() == 1 and len(args[1]) == 1  # as masked_fill
            if masks and not fills:
                wait(f"{name} by a mask")
        if space == "c10d":
            counts.collectives[f"{name} in {asked_by()}"] += 1
        elif launches:
            counts.launches[f"{name} in {asked_by()}"] += 1


# --- functions ---

_NAMES = (
    *("arange", "zeros", "ones", "empty", "full", "tensor", "as_tensor", "rand", "randn", "randint", "eye", "linspace"),
    *("logspace", "randperm", "triu_indices", "tril_indices", "empty_strided", "scalar_tensor", "from_numpy"),
    *("frombuffer", "asarray", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
)
_METHODS = ("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor")
_FACTORIES = {getattr(torch, name) for name in _NAMES} | {getattr(Tensor, name) for name in _METHODS}
_FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


class _Functions(TorchFunctionMode):
    current: Any = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before, _Functions.current = _Functions.current, func
        try:
            if func not in _FACTORIES:
                return func(*args, **kwargs)
            device = kwargs.get("device")
            if device is None:
                result = func(*args, **kwargs)
                if func is Tensor.new_tensor and is_marked(args[0]):
                    wait("a copy of data to the device")
                    mark(result)
                return result
            on_device = torch.device(device).type == "cuda"
            result = func(*args, **{**kwargs, "device": CPU})
            if on_device and func in _FROM_DATA:
                wait("a copy of data to the device")
            elif on_device and "empty" not in func.__name__:
                counts.launches[f"{func.__name__} in {asked_by()}"] += 1
            return mark(result, "cuda" if on_device else None)
        finally:
            _Functions.current = before


_to, _numpy, _tolist = torch._C.TensorBase.to, torch._C.TensorBase.numpy, torch._C.TensorBase.tolist
_placing = False


@contextmanager
def placing() -> Iterator[None]:
    """What a check itself puts on the device is not counted."""
    global _placing
    _placing = True
    try:
        yield
    finally:
        _placing = False


def _moved_to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    copy = kwargs.pop("copy", False)
    like = kwargs.pop("other", args[0] if args and isinstance(args[0], Tensor) else None)
    if like is not None:
        args, kwargs = (), {**kwargs, "device": like.device, "dtype": like.dtype}
    device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
    to_cuda, before = device is not None and device.type == "cuda", mark_of(self)
    if device is None or before == "either" or to_cuda == (before == "cuda"):
        if device is not None and before == "either":
            mark(self, "cuda" if to_cuda else None)
        settings = {} if layout is None else {"memory_format": layout}
        return _to(self, dtype or self.dtype, copy=copy, **settings)
    same = dtype is None or dtype == self.dtype
    moved = self.clone(memory_format=layout or torch.preserve_format) if same else _to(self, dtype)
    if not to_cuda:
        wait("a copy to the host")
    elif getattr(self, "_pretends_to_be_pinned", False) and non_blocking:
        counts.launches[f"copy to the device in {asked_by()}"] += 1
    elif not _placing:
        wait("a copy from pageable memory")
    return mark(moved, "cuda" if to_cuda else None)


def _as_numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
    if is_marked(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")
    return _numpy(self, *args, **kwargs)


def _as_list(self: Tensor) -> Any:
    if is_marked(self):
        wait("tolist")
    return _tolist(self)


def _pinned(self: Tensor, device: Any = None) -> Tensor:
    if is_marked(self):
        raise RuntimeError("cannot pin a tensor that is on the device")
    result = self.clone(memory_format=torch.preserve_format)
    result._pretends_to_be_pinned = True
    return result


_deepcopy = Tensor.__deepcopy__


def _copied(self: Tensor, memo: dict) -> Tensor:
    if mark_of(self) is None or not self.is_leaf or isinstance(self, torch.nn.Parameter):
        return _deepcopy(self, memo)
    if id(self) not in memo:
        copy = self.detach().clone(memory_format=torch.preserve_format)
        memo[id(self)] = copy.requires_grad_(self.requires_grad)
    return memo[id(self)]


def _patch() -> None:
    for name, value in {
        "device": property(lambda self: CUDA if is_marked(self) else torch._C.TensorBase.device.__get__(self)),
        "is_cuda": property(is_marked),
        "is_cpu": property(lambda self: not is_marked(self)),
        "get_device": lambda self: 0 if is_marked(self) else -1,
        "to": _moved_to,
        "cpu": lambda self, memory_format=None: _moved_to(self, "cpu"),
        "cuda": lambda self, device=None, non_blocking=False: _moved_to(self, "cuda", non_blocking=non_blocking),
        "numpy": _as_numpy,
        "tolist": _as_list,
        "pin_memory": _pinned,
        "is_pinned": lambda self, device=None: getattr(self, "_pretends_to_be_pinned", False),
        "__deepcopy__": _copied,
    }.items():
        setattr(Tensor, name, value)
    for name, answer in {
        "_lazy_init": None,
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "is_bf16_supported": True,
        "get_device_capability": (9, 0),
        "get_device_name": "a pretended GPU",
        "empty_cache": None,
        "manual_seed": None,
        "get_rng_state": None,
        "set_rng_state": None,
        "manual_seed_all": None,
        "is_current_stream_capturing": False,
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "reset_peak_memory_stats": None,
    }.items():
        setattr(torch.cuda, name, lambda *args, answer=answer, **kwargs: answer)
    torch.cuda.synchronize = lambda device=None: wait("synchronize")
    torch.cuda.set_sync_debug_mode = _refuse_waits
    torch.cuda.get_sync_debug_mode = lambda: "error" if _refusing_waits else "default"
    autocast = torch.autocast.__init__
    torch.autocast.__init__ = lambda self, device_type, *args, **kwargs: autocast(self, "cpu", *args, **kwargs)
    torch.optim.Optimizer._accelerator_graph_capture_health_check = lambda self: None
    from torch.nn.utils import clip_grad

    group = clip_grad._group_tensors_by_device_and_dtype

    def grouped(tables: list, *args: Any) -> dict:  # torch looks for the device below Python
        on_cuda = any(is_marked(tensor) for tensor in tables[0] if tensor is not None)
        return {(CUDA if on_cuda else key[0], key[1]): value for key, value in group(tables, *args).items()}

    clip_grad._group_tensors_by_device_and_dtype = grouped
    start, barrier = dist.init_process_group, dist.barrier

    def start_gloo(backend: Any = None, **kwargs: Any) -> None:
        kwargs.pop("device_id", None)
        start("gloo", **kwargs)

    dist.init_process_group = dist.distributed_c10d.init_process_group = start_gloo
    dist.barrier = lambda *args, **kwargs: barrier()
    scatter = dist.reduce_scatter_tensor

    def scattered(*args: Any, **kwargs: Any) -> Any:  # which gloo makes of copies
        before = counts.waits.copy()
        result = scatter(*args, **kwargs)
        counts.waits = before
        return result

    dist.reduce_scatter_tensor = scattered


_patched = False


@contextmanager
def pretended_gpu() -> Iterator[Counts]:
    """Inside the block there is a GPU; gives what is counted on it."""
    global _patched
    if not _patched:
        _patch()
        _patched = True
    with _Functions(), _Operations(), torch.autograd.set_multithreading_enabled(False):
        yield counts
