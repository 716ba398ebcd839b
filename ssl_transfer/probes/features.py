"""From images to the matrices of features that every probe works on, computed once for each model."""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from ssl_transfer.probes.checks import check_splits


@dataclass(frozen=True)
class Features:
    """Features and labels of a training and a test split, in row order."""

    train_x: Float[Tensor, "n_train d"]
    train_y: Int64[Tensor, " n_train"]
    test_x: Float[Tensor, "n_test d"]
    test_y: Int64[Tensor, " n_test"]


def extract_features(
    model: Callable[[Float32[Tensor, "n c h w"]], Float[Tensor, "n d"]],
    pixels: UInt8[Tensor, "n c h w"],
    *,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Float32[Tensor, "n d"]:
    """Features of every image in order: no augmentation, no gradient, the model in eval mode.

    The model sees images in [0, 1] and applies its own preprocessing. Batches of ``batch_size`` images are moved to
    ``device``, by default that of the model's parameters; the result is where ``pixels`` are. A caller with several
    processes gives each its own rows and concatenates the results. ``advance`` is called with the number of images
    after each batch.

    Raises:
        ValueError: there are no images, or a part of the model is in training mode.
    """
    if len(pixels) == 0:
        raise ValueError("there are no images to extract features from; give at least one.")
    _refuse_training_mode(model)
    device = torch.device(device) if device is not None else _device_of(model, pixels)
    rows = None
    for start in range(0, len(pixels), batch_size):
        with torch.inference_mode():
            images = pixels[start : start + batch_size].to(device).float().div_(255)
            features = model(images)
        if rows is None:
            # Allocated outside inference mode, so that the result is an ordinary tensor, which autograd accepts.
            rows = torch.empty(len(pixels), features.shape[1], device=pixels.device)
        rows[start : start + batch_size] = features
        advance(len(features))
    assert rows is not None
    return rows


def raw_pixels(pixels: UInt8[Tensor, "n c h w"]) -> Float32[Tensor, "n d"]:
    """The images themselves as features in [0, 1]: the baseline that any model has to beat."""
    return pixels.flatten(start_dim=1).float() / 255


def load_feature_file(path: str | PathLike[str]) -> Features:
    """Features that any tool has saved by ``numpy.savez(path, train_x=..., train_y=..., test_x=..., test_y=...)``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or its features cannot be scored.
    """
    arrays = _read_arrays(path)
    missing = [key for key in ("train_x", "train_y", "test_x", "test_y") if key not in arrays]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)} (it holds {', '.join(sorted(arrays)) or 'nothing'}); "
            "save it with numpy.savez(path, train_x=..., train_y=..., test_x=..., test_y=...)."
        )
    train_x, train_y, test_x, test_y = (
        _tensor(path, key, arrays[key]) for key in ("train_x", "train_y", "test_x", "test_y")
    )
    check_splits(train_x, train_y, test_x, test_y)
    return Features(train_x, train_y, test_x, test_y)


def _read_arrays(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as loaded:
            arrays = {key: loaded[key] for key in loaded}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # of others numpy gives the bytes
            raise ValueError("not only arrays")
        return arrays
    except (FileNotFoundError, IsADirectoryError, PermissionError, MemoryError):
        raise
    except Exception as error:  # numpy, zipfile, zlib and Python's tokenizer, which reads headers, have their own
        raise ValueError(f"{path} is not an npz file of arrays of numbers; save it with numpy.savez.") from error


def _tensor(path: str | PathLike[str], key: str, array: np.ndarray) -> Tensor:
    """Features as float32, or as float64 where float32 cannot hold them; labels as int64."""
    if key.endswith("_x"):
        if array.ndim != 2 or array.dtype.kind != "f":
            raise ValueError(
                f"{path}: {key} is {array.dtype} of shape {array.shape}; give floats of shape (rows, width)."
            )
        with np.errstate(over="ignore", under="ignore"):
            narrow = array.astype(np.float32)
        held = np.isfinite(narrow) == np.isfinite(array)
        return torch.from_numpy(narrow if (held & ((narrow == 0) == (array == 0))).all() else array.astype(np.float64))
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{path}: {key} is {array.dtype} of shape {array.shape}; give one integer label per row.")
    return torch.from_numpy(array.astype(np.int64))


def _refuse_training_mode(model: object) -> None:
    """In training mode a feature depends on its batch (or on chance), and scoring changes the model."""
    if not isinstance(model, nn.Module):
        return
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(
            f"the model is in training mode ({len(training)} modules, the first is {training[0]}); "
            "call model.eval() before extracting features."
        )


def _device_of(model: object, pixels: Tensor) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return pixels.device if parameter is None else parameter.device
