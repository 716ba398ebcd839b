"""Data sets whose files torchvision downloads, reads and checks."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torchvision.datasets.utils import check_integrity

Dataset = TypeVar("Dataset")


def load_checked(
    loader: Callable[[], Dataset], *, name: str, folder: Path, checksums: dict[str, str], download: bool
) -> Dataset:
    """What torchvision's ``loader`` loads from ``folder``; where it cannot, an error that says which file is at fault.

    ``checksums`` are the MD5 sums of the published files, by name; ``download`` says whether the loader tried to get
    those that are missing.

    Raises:
        FileNotFoundError: a file is missing, and was not or could not be downloaded.
        ValueError: a file does not have its published checksum.
    """
    try:
        with warnings.catch_warnings():
            # the published pickles hold a dtype flag as 0 instead of False, which new numpy versions remark
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            return loader()
    except (OSError, RuntimeError) as error:
        missing = [file for file in checksums if not (folder / file).is_file()]
        damaged = [
            file
            for file, checksum in checksums.items()
            if file not in missing and not check_integrity(folder / file, checksum)
        ]
        if missing:
            why = f"and could not be downloaded ({error})" if download else "and downloading is off"
            raise FileNotFoundError(
                f"{name} lacks {', '.join(missing)} in {folder}, {why}: put the files there or point root elsewhere."
            ) from error
        if damaged:
            raise ValueError(
                f"{name} has damaged files in {folder} ({', '.join(damaged)}: wrong checksum): "
                "delete them and get them again."
            ) from error
        raise


def downloaded(lister: Callable[[], Dataset]) -> Dataset:
    """What torchvision's ``lister`` lists, where it finds or downloads the data set.

    Raises:
        FileNotFoundError: it did not, in torchvision's words.
    """
    try:
        return lister()
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(str(error).removesuffix(" You can use download=True to download it")) from error
