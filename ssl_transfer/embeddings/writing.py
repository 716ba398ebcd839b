"""``ssl-transfer embed``: embeddings of any number of images into a file, by all processes, from where it stopped."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from rich.console import Console

from ssl_transfer.context import device_name, on_main_process, versions
from ssl_transfer.data import Images
from ssl_transfer.data.sources.streaming import StreamedPixels
from ssl_transfer.distributed import meet
from ssl_transfer.embeddings.computing import KeptParts, embed_rows
from ssl_transfer.embeddings.embedder import Embedder, columns_of, listed
from ssl_transfer.embeddings.images import Wanted
from ssl_transfer.embeddings.table import Embeddings, check_name, read_about, write_embeddings
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.progress import Stage


def embed_to_file(
    embedder: Embedder, wanted: Wanted, to: Path, *, layer: str, image_size: int | None, **where: Any
) -> list[str]:
    """Write the embeddings of ``wanted`` into the file ``to``, and return what to say of it, in sentences.

    Parts are kept in a folder beside the file until it is whole, and what is there of the same model, images and layer
    is not computed again. Processes share the parts; all return when the file is written.

    Raises:
        UserError: ``to`` holds something else.
        ValueError, FileNotFoundError: as :meth:`Embedder.embed`, and for a name in which nothing can be kept.
        OSError: the system refused.
    """
    check_name(to)
    state = PartialState()
    images, how = embedder.find_images(wanted, image_size=image_size, **where)
    key = {**embedder.describe(layer), "images": {**how, "sha256": _identity(images)}}
    parts = KeptParts(to.with_name(f"{to.name}.parts"), key, len(images))
    if on_main_process(lambda: _is_done(to, key, parts)):
        return [f"{to} holds these embeddings already"]
    own = range(state.process_index, len(parts.slices), state.num_processes)
    missing = [number for number in parts.missing() if number in own]
    _compute(embedder, layer, images, parts, missing, len(own))
    meet()
    return on_main_process(lambda: _merge(images, parts, to, key))


def _is_done(to: Path, key: dict[str, Any], parts: KeptParts) -> bool:
    """Whether ``to`` is what is about to be made already."""
    if not to.exists():
        parts.forget_others()
        return False
    made = read_about(to) or {}
    if any(made.get(name) != value for name, value in key.items()):
        raise UserError(f"{to} exists and holds something else: choose another file with --to, or remove it")
    return True


def _compute(embedder: Embedder, layer: str, images: Images, parts: KeptParts, missing: list[int], own: int) -> None:
    state, network = PartialState(), embedder.layer(layer)
    console = Console(markup=False, emoji=False) if state.is_main_process else None
    several = f" (process 1 of {state.num_processes})" if state.num_processes > 1 else ""
    if console is not None and len(missing) < own:
        console.print(f"{own - len(missing)} of {own} parts are there already", highlight=False)
    todo = sum(parts.slices[number].stop - parts.slices[number].start for number in missing)
    with Stage(f"embedding {images.name}{several}", console, todo, unit="images") as stage:
        for number in missing:
            parts.write(number, embed_rows(network, images, parts.slices[number], advance=stage.advance))


def _merge(images: Images, parts: KeptParts, to: Path, key: dict[str, Any]) -> list[str]:
    """Write the parts into one file; they are read twice, so that not all of them have to be in memory."""
    rows: list[np.ndarray] = []
    broken: dict[str, str] = {}
    width = 0
    with user_mistakes():
        for number in range(len(parts.slices)):
            part = parts.read(number)
            rows.append(part.rows.numpy())
            broken |= part.broken
            width = max(width, part.values.shape[1])
    kept = np.concatenate(rows)
    if not len(kept):
        raise UserError(f"no image of {images.name} can be decoded: {listed(broken)}")
    state = PartialState()
    inventory = None if images.inventory is None else images.inventory.summary()["left_out"]
    about = {
        **key,
        "left_out": broken,
        "not_taken": inventory,
        "device": device_name(state.device),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    table = Embeddings(np.empty((len(kept), 0), np.float32), **columns_of(images, kept), about=about)
    values = (parts.read(number).values.numpy() for number in range(len(parts.slices)))
    write_embeddings(to, table, (block for block in values if len(block)))
    parts.remove()
    sentences = [f"{to} holds {len(kept):,} embeddings, {width} wide, of {images.name}"]
    if broken:
        sentences.append(f"{len(broken)} images cannot be decoded and are left out: {listed(broken)}")
    if images.inventory is not None and images.inventory.remarkable:
        sentences.append(f"{images.name}: {images.inventory}")
    return sentences


def _identity(images: Images) -> str:
    """What tells these images from others, without a look at those of files: their names and when they were changed."""
    if not isinstance(images.pixels, StreamedPixels) or images.files is None:
        return images.fingerprint
    digest = hashlib.sha256(repr(tuple(images.pixels.shape)).encode())
    for name in images.files:
        digest.update(name.encode(errors="surrogateescape") + b"\0")
    digest.update(images.files.storage.changed().tobytes())
    return digest.hexdigest()[:16]
