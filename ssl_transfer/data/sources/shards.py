"""Tar files of images as webdataset lays them out, reached by place through an index of their members.

A sample is the members of a folder whose names agree up to their first dot: ``000017.jpg``, ``000017.cls`` and
``000017.seg.png`` are one, with an image, a class and a mask. webdataset itself reads shards from front to end and
shuffles within a buffer, so what it gives at some step depends on the workers and on what was read before; here the
members' offsets are read once, from the headers alone, and any image is one seek away.

The index of a tar file is kept where a folder is given for it, so a shard that is added costs the reading of that one;
and so is the index of all of them together, as arrays that are mapped into memory and not read (:class:`TarStorage`).
"""

import glob
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64

from ssl_transfer.data.sources import stores
from ssl_transfer.data.sources.decode import SUFFIXES, decode
from ssl_transfer.data.sources.encoded import EncodedImages, check_label
from ssl_transfer.data.sources.inventory import HIDDEN, Tally
from ssl_transfer.data.sources.labels import number_labels, parse_label
from ssl_transfer.data.sources.listing import is_hidden, suffix_of
from ssl_transfer.data.sources.parts import refuse_missing_parts
from ssl_transfer.data.sources.storage import Storage, sampled_file
from ssl_transfer.data.sources.streaming import worker_context
from ssl_transfer.files import is_address, json_hash, new_folder, write_atomically

_MARK = 2 * tarfile.BLOCKSIZE  # zeros, by which a tar file ends; most programs then fill a record with more
_FORM = 1  # of the files of an index: another is another number
_MANY = 8  # tar files from which on several processes read their headers
_STREAMS = 16  # tar files of a store that are read at a time


class TarFile(NamedTuple):
    """A tar file on a disk or in a store, and what changes with its content."""

    path: str
    version: str

    @property
    def remote(self) -> bool:
        """Whether it lies in a store."""
        return is_address(self.path)

    @property
    def changed(self) -> int:
        """When it was changed, or where a store does not say that a number that its version makes."""
        if not self.remote:
            return os.stat(self.path).st_mtime_ns
        return int.from_bytes(hashlib.sha256(self.version.encode()).digest()[:7], "big")


class TarStorage(Storage):
    """Images inside tar files: which file, where in it, how long, and what it is called there.

    Five arrays have that, some 40 bytes and a name for each image. If they lie in a ``folder`` they are mapped from
    there when they are needed, by each process for itself: what a worker is sent is the folder's name.
    """

    ARRAYS = ("tar", "offset", "size", "end_of_name", "names")

    def __init__(self, tars: Sequence[TarFile], arrays: dict[str, np.ndarray] | None, folder: Path | None = None):
        self._tars, self._folder = list(tars), folder
        self._kept: dict[str, np.ndarray] | None = arrays

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        if self._kept is None:
            assert self._folder is not None
            self._kept = {name: np.load(self._folder / f"{name}.npy", mmap_mode="r") for name in self.ARRAYS}
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | ({} if self._folder is None else {"_kept": None})

    def __len__(self) -> int:
        return len(self._arrays["offset"])

    def read(self, place: int) -> bytes:
        """The member's content."""
        tar, start, size = self._where(place)
        if tar.remote:
            return stores.read_range(tar.path, start, size)
        with open(tar.path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(size)

    def name(self, place: int) -> str:
        """Tar file and member."""
        return f"{self._where(place)[0].path}:{self._member(place)}"

    def key(self, place: int) -> str:
        """Tar file without its folder, and member."""
        return f"{PurePosixPath(self._where(place)[0].path).name}:{self._member(place)}"

    def sample(self, place: int) -> bytes:
        """Of the member; of one in a store its size and its tar file's version, which are known without reading."""
        tar, start, size = self._where(place)
        return f"{tar.version} {start} {size}".encode() if tar.remote else sampled_file(tar.path, start, size)

    def changed(self) -> Int64[np.ndarray, " _"]:
        """Each tar file."""
        return np.array([tar.changed for tar in self._tars])

    def digests(self, places: Sequence[int] | Int64[np.ndarray, " n"]) -> bytes:
        """Those of all images are kept with the index, which is another as soon as a tar file is changed."""
        if self._folder is None:
            return super().digests(places)
        # The checksum is in the name: a file that is damaged is none.
        kept = next(self._folder.glob("digests-*.npy"), None) if self._digests is None else None
        if kept is not None and kept.stem == f"digests-{_checksum(kept)}":
            self._digests = np.load(kept, mmap_mode="c")
            return super().digests(places)
        found, digests = super().digests(places), self._digests
        if digests is not None and digests.any(axis=1).all() and not isinstance(digests, np.memmap):
            for damaged in self._folder.glob("digests-*.npy"):
                damaged.unlink()
            content = io.BytesIO()
            np.save(content, digests)
            path = self._folder / f"digests-{zlib.crc32(content.getbuffer())}.npy"
            write_atomically(path, lambda temporary: temporary.write_bytes(content.getbuffer()))
        return found

    def _where(self, place: int) -> tuple[TarFile, int, int]:
        found = self._arrays
        return self._tars[found["tar"][place]], int(found["offset"][place]), int(found["size"][place])

    def _member(self, place: int) -> str:
        ends = self._arrays["end_of_name"]
        start = int(ends[place - 1]) if place else 0
        return self._arrays["names"][start : int(ends[place])].tobytes().decode(errors="surrogateescape")


def find_shards(
    root: Path | str, split: str, *, labels: str = "auto", image: str | None = None, index: Path | None = None
) -> EncodedImages:
    """The images of the tar files ``root / split`` (with wildcards), of all in that folder, or named ``split-*.tar``.

    ``root`` may be an address, such as ``s3://bucket/folder``. A split may have ``{000000..000123}`` in it, which a
    store that cannot list its files, as most web servers, needs. The class of a sample is its ``.cls`` member: a whole
    number, below 0 where it is hidden, or the name of a class.

    Keyword arguments:
        labels: ``none`` leaves all images without labels.
        image: what the name of a sample's image goes on with after its first dot, such as ``jpg`` or ``left.png``; None
            where each sample has one image whose name has no other dot.
        index: a folder in which the index is kept, to be made once.

    Raises:
        FileNotFoundError: there is no such tar file, or no image in them, or a numbered one is missing.
        ValueError: a tar file was cut or damaged, a sample has several images or only part of the samples a class, or
            what belongs to a sample, or what its class is, cannot be known.
        OSError: a store is away.
    """
    if labels not in ("auto", "none"):
        raise ValueError(f"labels {labels} must be auto, which reads .cls members, or none.")
    tars = _tars(root, split)
    how = _How(None if image is None else image.lower().removeprefix("."), labels == "auto")
    whole = None if index is None else index / f"all-{json_hash([how.key(tar) for tar in tars])}"
    about = None if whole is None else _known(whole)
    made = None
    if about is None:
        made = _together(tars, how, root, split, index)
        whole = None if whole is None else _keep_whole(whole, *made)
        about = made[1]
    if whole is None:
        assert made is not None
        storage, numbers = TarStorage(tars, made[0]), made[0].get("labels")
    else:
        storage = TarStorage(tars, None, whole)
        # Copied when written to, which nobody does: torch takes no array that cannot be.
        numbers = np.load(whole / "labels.npy", mmap_mode="c") if about["labels"] else None
    tally = Tally()
    tally.add(about["left_out"])
    names = about["class_names"]
    return EncodedImages(
        storage,
        torch.arange(len(storage)),
        None if numbers is None else torch.from_numpy(numbers),
        about["classes"],
        PurePosixPath(str(root)).name,
        split,
        None if names is None else tuple(names),
        tally.inventory(len(storage)),
    )


def _together(
    tars: Sequence[TarFile], how: "_How", root: Path | str, split: str, index: Path | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of all tar files, and what else is to be known of them."""
    parts = _parts(tars, how, index)
    counts = [len(part.offset) for part in parts]
    left_out = Tally()
    for part in parts:
        left_out.add(part.left_out)
    if not sum(counts):
        raise FileNotFoundError(
            f"No sample in {', '.join(tar.path for tar in tars)} has an image "
            + (f"ending in {', '.join(SUFFIXES)}" if how.image is None else f"whose name goes on with {how.image}")
            + f" ({left_out.inventory(0)})."
        )
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("offset", "size", "names")}
    before = np.cumsum([0, *(len(part.names) for part in parts[:-1])])
    ends = [part.end_of_name + shift for part, shift in zip(parts, before, strict=True)]
    arrays = joined | {"tar": np.repeat(np.arange(len(tars), dtype=np.uint32), counts)}
    arrays["end_of_name"] = np.concatenate(ends)
    storage = TarStorage(tars, arrays)
    found = [label for part in parts for label in part.labels]
    numbers, names = number_labels(found, f"the shards of {root}", storage._member)
    classes = None
    if numbers is not None:
        check_label(max(numbers), PurePosixPath(str(root)).name, split)
        arrays["labels"] = np.array(numbers, dtype=np.int64)
        classes = max(numbers) + 1 if names is None else len(names)
    about = {"labels": numbers is not None, "classes": classes, "class_names": names, "left_out": left_out.content()}
    return arrays, about


def _keep_whole(folder: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Path | None:
    """Write the index of all tar files; None where that cannot be, and it is used from memory."""
    try:
        shutil.rmtree(folder, ignore_errors=True)  # one that is damaged
        with new_folder(folder) as making:
            for name, array in arrays.items():
                np.save(making / f"{name}.npy", array)
            sums = {f"{name}.npy": _checksum(making / f"{name}.npy") for name in arrays}
            (making / "about.json").write_text(json.dumps([about, sums, json_hash([about, sums])]))
    except OSError:
        return folder if _known(folder) is not None else None  # another program was first, or nobody can write
    return folder


def _known(folder: Path) -> dict[str, Any] | None:
    """What is to be known of the index of all tar files; None where it is not there, or a file of it is damaged."""
    try:
        about, sums, own = json.loads((folder / "about.json").read_bytes())
        whole = own == json_hash([about, sums]) and all(
            _checksum(folder / name) == found for name, found in sums.items()
        )
    except (OSError, ValueError, TypeError):
        return None
    return about if whole else None


def _checksum(path: Path) -> int:
    """CRC-32 of a file: half a second for the index of ten million images."""
    found = 0
    with path.open("rb") as file:
        while part := file.read(2**24):
            found = zlib.crc32(part, found)
    return found


@dataclass(frozen=True)
class _Part:
    """What is to be known of the images of one tar file, in the order in which they lie there."""

    offset: np.ndarray
    size: np.ndarray
    names: np.ndarray  # of the members, one after another
    end_of_name: np.ndarray
    labels: list[int | str | None]
    left_out: dict[str, Any]

    @classmethod
    def of(cls, samples: Sequence["_Sample"], left_out: Tally) -> "_Part":
        names = [sample.name.encode(errors="surrogateescape") for sample in samples]
        return cls(
            np.array([sample.offset for sample in samples], dtype=np.int64),
            np.array([sample.size for sample in samples], dtype=np.int64),
            np.frombuffer(b"".join(names), np.uint8),
            np.cumsum([len(name) for name in names], dtype=np.int64),
            [sample.label for sample in samples],
            left_out.content(),
        )

    def write(self, path: Path) -> None:
        rest = json.dumps([self.labels, self.left_out]).encode()
        arrays = {name: getattr(self, name) for name in ("offset", "size", "names", "end_of_name")}
        with path.open("wb") as file:
            np.savez(file, rest=np.frombuffer(rest, np.uint8), **arrays)

    @classmethod
    def read(cls, path: Path) -> "_Part | None":
        """The part in a file, None where there is none or it is damaged: it is made again."""
        try:
            # numpy checks the CRC-32 of each array, and leaves a file open that it opened and found damaged.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                content = {name: found[name] for name in found.files}
            labels, left_out = json.loads(content.pop("rest").tobytes())
            return cls(**content, labels=labels, left_out=left_out)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None


@dataclass(frozen=True)
class _How:
    """Which image of a sample is meant, and whether its class is wanted."""

    image: str | None
    with_labels: bool

    def key(self, tar: TarFile) -> str:
        """All that decides the index of a tar file."""
        return json_hash([_FORM, *tar, self.image, self.with_labels])

    def part(self, tar: TarFile, index: Path | None) -> _Part:
        """The index of a tar file: read if it is known, else made and kept."""
        kept = None if index is None else index / f"{self.key(tar)}.npz"
        known = None if kept is None else _Part.read(kept)
        if known is not None:
            return known
        left_out = Tally()
        samples = _read(tar, lambda file: _samples(file, tar.path, self.image, self.with_labels, left_out))
        made = _Part.of(samples, left_out)
        if kept is not None:
            try:
                write_atomically(kept, made.write)
            except OSError:  # nobody can write there: it will be made again
                pass
        return made


def _parts(tars: Sequence[TarFile], how: _How, index: Path | None) -> list[_Part]:
    """The index of each tar file; those of a store by many threads, which wait, others by a process for each core."""
    do: Callable[[TarFile], _Part] = partial(how.part, index=index)
    pool: Executor
    if any(tar.remote for tar in tars):
        pool = ThreadPoolExecutor(_STREAMS)
    elif index is None or sum(not (index / f"{how.key(tar)}.npz").is_file() for tar in tars) < _MANY:
        return [do(tar) for tar in tars]
    else:
        pool = ProcessPoolExecutor(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            mp_context=worker_context(),
        )
    with pool:
        return list(pool.map(do, tars, chunksize=4))


def _tars(root: Path | str, split: str) -> list[TarFile]:
    patterns = [split, f"{split}/*.tar", f"{split}-*.tar", f"{split}.tar"]
    find = _in_store if is_address(root) else _on_disk
    for pattern in patterns:
        found = find(str(root), pattern)
        if found and pattern != split:  # else just these are asked for
            refuse_missing_parts([Path(tar.path) for tar in found])
        if found:
            return found
    looked = ", ".join(f"{root}/{pattern}" for pattern in patterns)
    raise FileNotFoundError(f"There is no tar file for split {split}: looked for {looked}.")


def _on_disk(root: str, pattern: str) -> list[TarFile]:
    found = sorted(
        os.path.join(root, path) for part in stores.expanded(pattern) for path in glob.glob(part, root_dir=root)
    )
    _refuse_gaps(pattern, found)
    # A link to nothing is met when it is opened.
    return [TarFile(path, _version(path)) for path in found if os.path.isfile(path) or not os.path.exists(path)]


def _in_store(root: str, pattern: str) -> list[TarFile]:
    try:
        found = stores.find(root, pattern)
    except FileNotFoundError:  # nothing to list there
        return []
    _refuse_gaps(pattern, [file.address for file in found])
    return [TarFile(file.address, f"{file.size} {file.version}") for file in found]


def _refuse_gaps(pattern: str, found: Sequence[str]) -> None:
    asked = stores.expanded(pattern)
    if len(asked) > 1 and len(found) < len(asked):
        lacking = next(name for name in asked if not any(path.endswith(name) for path in found))
        raise FileNotFoundError(
            f"{len(asked) - len(found)} of the files {pattern} are missing, the first is {lacking}."
        )


def _version(path: str) -> str:
    """What changes whenever a file does: also the time that the system alone can set."""
    try:
        found = os.stat(path)
    except OSError:
        return "none"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _read(tar: TarFile, do: Callable[[Any], "list[_Sample]"]) -> "list[_Sample]":
    if tar.remote:
        return stores.reading(tar.path, do)
    with open(tar.path, "rb") as file:
        return do(file)


class _Sample(NamedTuple):
    """Where an image lies in its tar file, and its class."""

    name: str
    offset: int
    size: int
    label: int | str | None


def _samples(file: Any, tar: str, image: str | None, with_labels: bool, left_out: Tally) -> list[_Sample]:
    """The samples of a tar file that have an image, in the order of their images."""
    found = []
    members, classes = _members(file, tar)
    for sample, parts in _by_sample(members, tar, left_out).items():
        chosen = _image_of(f"{tar}:{sample}", parts, image)
        if chosen is None:
            left_out.leave_out("samples without an image", sample)
            continue
        label = None
        if with_labels and "cls" in parts:
            label = parse_label(classes[parts["cls"].offset_data], f"{tar}:{parts['cls'].name}")
        member = parts[chosen]
        found.append(_Sample(member.name, member.offset_data, member.size, label))
        for extension, other in parts.items():
            if extension not in (chosen, "cls"):
                _leave_out(other.name, extension, left_out)
    return sorted(found, key=lambda sample: sample.offset)


def _by_sample(members: Iterable[tarfile.TarInfo], tar: str, left_out: Tally) -> dict[str, dict[str, tarfile.TarInfo]]:
    """The files in a tar file by their sample, and those of each by what follows the first dot of their name."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in members:
        sample, extension = _split(member.name)
        if member.isdir():
            continue
        if any(is_hidden(part) for part in member.name.split("/") if part not in ("", ".", "..")):
            left_out.leave_out(HIDDEN, member.name)
        elif not member.isreg() or member.issparse():
            if _is_image(extension) or extension == "cls":
                raise ValueError(f"{tar}:{member.name} is a link, or has holes: pack the files themselves.")
            _leave_out(member.name, extension, left_out)
        elif extension in samples.setdefault(sample, {}):
            raise ValueError(f"{tar} has two members {member.name}: which of them is meant cannot be known.")
        else:
            samples[sample][extension] = member
    return samples


def _image_of(sample: str, members: Collection[str], image: str | None) -> str | None:
    """Which of a sample's members, by the ends of their names, is its image, if it has one."""
    images = [extension for extension in members if _is_image(extension)]
    plain = [extension for extension in images if "." not in extension]
    dotted = [extension for extension in members if extension.endswith(".cls")]
    if image is None and not plain:
        dotted += images
    if dotted:
        raise ValueError(
            f"{sample}.{dotted[0]} is of the sample {sample}, since a sample's name ends at its first dot: name "
            "samples without dots, or, if each has several images of such names, choose one, such as image=left.png."
        )
    if image is not None:
        return image if image in members else None
    if len(plain) > 1:
        raise ValueError(f"{sample} has the images {', '.join(plain)}: choose one, such as image={plain[0]}.")
    return plain[0] if plain else None


def _leave_out(name: str, extension: str, left_out: Tally) -> None:
    if _is_image(extension):
        left_out.leave_out("further images of samples", name)
    else:
        left_out.leave_out(f"members ending in {suffix_of(f'x.{extension}')}", name)


def _split(name: str) -> tuple[str, str]:
    """A member's sample, its name up to the first dot, and what follows, in small letters as webdataset has it."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _is_image(extension: str) -> bool:
    return suffix_of(f"x.{extension}") in SUFFIXES


def _members(file: Any, tar: str) -> tuple[list[tarfile.TarInfo], dict[int, bytes]]:
    """The headers of a tar file, and by their offsets the contents of members that end in .cls, in one go.

    The file must be whole: Python's tarfile reads one that was cut as a shorter one.
    """
    members, classes = [], {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                members.append(member)
                if member.isreg() and _split(member.name)[1] == "cls":
                    content = archive.extractfile(member)
                    assert content is not None
                    classes[member.offset_data] = content.read(4096)
            end = archive.offset
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(f"{tar} is no whole, uncompressed tar file ({error}): write it again.") from error
    length = file.seek(0, os.SEEK_END)
    file.seek(end)
    if any(file.read(2 * tarfile.RECORDSIZE)):
        raise ValueError(f"{tar} is damaged at byte {end}, or is two tar files in one: write it again.")
    if length < end + _MARK:
        raise ValueError(f"{tar} does not end as a tar file does: it was cut, or not written to its end.")
    padded = -(-(end + _MARK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    if length not in (end + _MARK, padded) or (members and _is_zeroed(file, members[-1])):
        raise ValueError(f"{tar} ends in {length - end} zeros: part of it was not written: write it again.")
    return members, classes


def _is_zeroed(file: Any, member: tarfile.TarInfo) -> bool:
    """Whether a member is an image that is broken and ends in zeros."""
    file.seek(member.offset_data)
    content = file.read(member.size)
    if not content or suffix_of(member.name) not in SUFFIXES or any(content[-tarfile.BLOCKSIZE :]):
        return False
    try:
        decode(content, 1)
    except ValueError:
        return True
    return False
