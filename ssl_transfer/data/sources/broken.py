"""Decode every image once before training, so that a broken one is met at the start and not in the tenth hour."""

import hashlib
import json
import logging
import os
import secrets
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from ssl_transfer.data.sources.encoded import UNREADABLE, EncodedImages

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 2048


def whole_rows(encoded: EncodedImages, broken: dict[int, str], on_error: str) -> Int64[Tensor, " n"]:
    """The rows without those that are broken, which are listed: in an error, or with ``skip`` in a warning of the log.

    Raises:
        ValueError: there are broken rows and ``on_error`` is ``raise``, or no other rows.
    """
    listed = ", ".join(f"{encoded.file_name(row)} ({why})" for row, why in sorted(broken.items()))
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


def find_broken(encoded: EncodedImages, size: int, *, memory: Path | None) -> dict[int, str]:
    """The rows that cannot be decoded, and why: every image is decoded once.

    What was found is kept in the folder ``memory`` under the files' names, sizes and newest change, so that the same
    files are not checked twice; unless a file could not be read, which may pass.
    """
    key = hashlib.sha256(f"{encoded.fingerprint} {encoded.storage.modified()}".encode()).hexdigest()[:16]
    note = memory / f"{key}.json" if memory is not None else None
    if note is not None and note.is_file():
        return {int(row): why for row, why in json.loads(note.read_text()).items()}
    broken: dict[int, str] = {}
    log.info("checking %d images of %s %s", len(encoded), encoded.name, encoded.split)
    for rows in torch.arange(len(encoded)).split(_ROWS_AT_ONCE):
        broken |= encoded.decode_in_threads(rows.tolist(), size)[1]
    passing = any(why.startswith(UNREADABLE) for why in broken.values())
    if note is not None and not passing:
        note.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when whole: other processes may look for it.
        temporary = note.with_suffix(f".{secrets.token_hex(8)}.tmp")
        temporary.write_text(json.dumps(broken))
        os.replace(temporary, note)
    return broken
