"""Decode every image once before training, so that a broken one is met at the start and not in the tenth hour."""

import hashlib
import logging
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from ssl_transfer.data.sources.encoded import UNREADABLE, EncodedImages
from ssl_transfer.data.sources.inventory import printable
from ssl_transfer.files import read_json, verified, with_checksum, write_json

log = logging.getLogger(__name__)

_BYTES_AT_ONCE = 2**28  # of pixels, which nobody wants
_NAMED = 50  # in one message


def whole_rows(encoded: EncodedImages, broken: dict[int, str], on_error: str) -> Int64[Tensor, " n"]:
    """The rows without those that are broken, which are listed: in an error, or with ``skip`` in a warning of the log.

    Raises:
        ValueError: there are broken rows and ``on_error`` is ``raise``, or no other rows.
    """
    listed = describe(encoded, broken)
    if broken and (on_error == "raise" or len(broken) == len(encoded)):
        raise ValueError(
            f"{len(broken)} of {len(encoded)} images cannot be decoded: {listed}: mend or remove them, "
            "or leave them out with data.on_error=skip."
        )
    if broken:
        log.warning("%d of %d images skipped: %s", len(broken), len(encoded), listed)
    whole = torch.ones(len(encoded), dtype=torch.bool)
    whole[list(broken)] = False
    return whole.nonzero()[:, 0]


def describe(encoded: EncodedImages, broken: dict[int, str]) -> str:
    """Names of broken images and what is wrong with each, of the first fifty."""
    named = sorted(broken.items())[:_NAMED]
    listed = ", ".join(f"{printable(encoded.file_name(row))} ({why})" for row, why in named)
    return listed + (f" and {len(broken) - len(named)} more" if len(broken) > len(named) else "")


def find_broken(encoded: EncodedImages, size: int, *, memory: Path | None) -> dict[int, str]:
    """The rows that cannot be decoded, and why: every image is decoded once.

    What was found is kept in the folder ``memory``, under the images' fingerprint and the times at which their files
    were changed, so that the same files are not checked twice; unless a file could not be read, which may pass.
    """
    note = None if memory is None else memory / f"{_key(encoded)}.json"
    if note is not None and (known := _remembered(note, len(encoded))) is not None:
        return known
    broken: dict[int, str] = {}
    log.info("checking %d images of %s %s", len(encoded), encoded.name, encoded.split)
    for rows in torch.arange(len(encoded)).split(max(1, _BYTES_AT_ONCE // (3 * size**2))):
        broken |= encoded.decode_in_threads(rows.tolist(), size)[1]
    passing = any(why.startswith(UNREADABLE) for why in broken.values())
    if note is not None and not passing:
        reasons = {str(row): why for row, why in broken.items()}
        write_json(note, with_checksum({"images": len(encoded), "broken": reasons}))
    return broken


def _key(encoded: EncodedImages) -> str:
    return hashlib.sha256(encoded.fingerprint.encode() + encoded.storage.changed().tobytes()).hexdigest()[:16]


def _remembered(note: Path, images: int) -> dict[int, str] | None:
    """What a note says of this number of images; nothing if it is missing, or not as it was written."""
    try:
        content = verified(read_json(note))
        broken = {int(row): str(why) for row, why in content["broken"].items()}
        return broken if content["images"] == images and all(0 <= row < images for row in broken) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
