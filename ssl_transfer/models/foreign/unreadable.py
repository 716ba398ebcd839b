"""Why a file cannot be read as a checkpoint, and the line that makes one of it.

What torch refuses to read is looked at here without running anything of it: every class that the file names is replaced
by an empty one, so that the outline can be seen and the line that is printed fits the file.
"""

import pickle
import re
import textwrap
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

_MAGIC = 0x1950A86A20F9469CFC6C  # the first of the pickles in a file of torch < 1.6
_BY_HAND = "save the network's state_dict() by torch.save where the file was made, and give that file"


def explain(path: Path, error: Exception) -> str:
    """One sentence on why torch raised ``error`` at reading ``path``, and on what to do."""
    inside = _names_in_archive(path)
    if "constants.pkl" in inside:
        return (
            f"{path} is a TorchScript archive, a program with its weights, which is not run here: if you trust it, "
            "convert it by torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE) "
            "and give NEW_FILE"
        )
    if inside and "data.pkl" not in inside:
        return f"{path} cannot be read as a checkpoint: it is a zip archive that torch.save did not write"
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and (wanted or inside or _is_pickle(path)):
        what = f"an object of {wanted[1]}" if wanted else "pickled objects"
        return (
            f"{path} holds {what}, which would run code to be read, so it was not opened: if you trust it, "
            + _conversion(path)
        )
    foreign = isinstance(error, LookupError | UnicodeDecodeError | pickle.UnpicklingError)
    reason = "it is not written by torch.save" if foreign else shortened(error) or "the file ends too early"
    return f"{path} cannot be read as a checkpoint ({reason}): it may be cut short or of another kind"


def shortened(error: Exception) -> str:
    """What an error says, in one line that ends with a whole word."""
    return textwrap.shorten(str(error), 160, placeholder=" ...")


class _StandIn:
    """In the place of any object: takes what unpickling hands it, keeps its state and does nothing."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "_StandIn":
        return _StandIn()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = add = append


class _Tensor(_StandIn):
    """In the place of a tensor."""


class _Outline(pickle.Unpickler):
    """Unpickles dictionaries, lists and plain values, and puts stand-ins for all else: nothing of the file runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return _Tensor if module == "torch._utils" and name.startswith("_rebuild") else _StandIn

    def persistent_load(self, pid: Any) -> Any:
        is_class = isinstance(pid, tuple) and pid[:1] == ("module",)  # of torch < 1.6: a class beside its source
        return pid[1] if is_class else _StandIn()


def _conversion(path: Path) -> str:
    """What to do with a file that needs pickle, with the line that does it where the outline shows the weights."""
    try:
        count, access = _weights(_outline(path))
    except Exception:  # whatever a pickle can raise that is damaged or not torch's: the file is only being described
        count, access = 0, ""
    if count == 0:
        return _BY_HAND
    loaded = f"torch.load(FILE, map_location='cpu', weights_only=False){access}"
    return f"convert it where it was made by torch.save({loaded}, NEW_FILE) and give NEW_FILE"


def _outline(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(content) as file:
                return _Outline(file).load()
    with path.open("rb") as file:
        if _Outline(file).load() != _MAGIC:
            raise ValueError("a pickle, but not of torch.save")
        _protocol, _system, content = (_Outline(file).load() for _ in range(3))
        return content


def _weights(content: Any) -> tuple[int, str]:
    """How many tensors the largest state dict in ``content`` has, and the Python that gets it from there."""
    if isinstance(content, _StandIn):
        return _tensors_of_module(content), ".state_dict()"
    if not isinstance(content, dict):
        return 0, ""
    here = sum(isinstance(value, _Tensor) for value in content.values()) if _is_plain(content) else 0
    inside = ((count, f"[{key!r}]{access}") for key, value in content.items() for count, access in [_weights(value)])
    return max([(here, ""), *inside], key=lambda found: found[0])


def _is_plain(content: Any) -> bool:
    """Whether there is nothing but tensors, plain values and what holds them."""
    if isinstance(content, dict | list | tuple | set):
        return all(map(_is_plain, content.values() if isinstance(content, dict) else content))
    return isinstance(content, _Tensor) or not isinstance(content, _StandIn)


def _tensors_of_module(module: _StandIn) -> int:
    """How many tensors a pickled module and the modules in it have; none if it is no module."""
    state = module.state
    if not isinstance(state, dict) or "_modules" not in state:
        return 0
    own = [value for kind in ("_parameters", "_buffers") for value in state.get(kind, {}).values()]
    inner = [_tensors_of_module(each) for each in state["_modules"].values() if isinstance(each, _StandIn)]
    return sum(isinstance(value, _Tensor) for value in own) + sum(inner)


def _names_in_archive(path: Path) -> set[str]:
    """The files in a zip archive, without their folders; none if ``path`` is none."""
    if not zipfile.is_zipfile(path):
        return set()
    with zipfile.ZipFile(path) as archive:
        return {name.rpartition("/")[2] for name in archive.namelist()}


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"  # how a pickle of protocol 2 and later begins
