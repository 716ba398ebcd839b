"""Tar files of images as webdataset lays them out, reached by place through an index of their members.

A sample is the members of a folder whose names agree up to their first dot: ``000017.jpg``, ``000017.cls`` and
``000017.seg.png`` are one, with an image, a class and a mask. webdataset itself reads shards from front to end and
shuffles within a buffer, so what it gives at some step depends on the workers and on what was read before; here the
members' offsets are read once, from the headers alone, and any image is one seek away.
"""

import glob
import os
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int64

from ssl_transfer.data.sources.decode import SUFFIXES, decode
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.inventory import HIDDEN, Tally
from ssl_transfer.data.sources.labels import number_labels, parse_label
from ssl_transfer.data.sources.listing import is_hidden, suffix_of
from ssl_transfer.data.sources.parts import refuse_missing_parts
from ssl_transfer.data.sources.storage import Storage, sampled_file

_MARK = 2 * tarfile.BLOCKSIZE  # zeros, by which a tar file ends; most programs then fill a record with more


class TarStorage(Storage):
    """Images inside tar files: which file, where in it, and how long."""

    def __init__(self, tars: Sequence[Path], names: Sequence[str], offsets: Sequence[int], sizes: Sequence[int]):
        self._tars = sorted({str(path) for path in tars})
        number = {path: place for place, path in enumerate(self._tars)}
        self._tar = np.array([number[str(path)] for path in tars])
        self._names, self._offsets, self._sizes = list(names), np.array(offsets), np.array(sizes)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, place: int) -> bytes:
        """The member's content."""
        with open(self._tars[self._tar[place]], "rb", buffering=0) as file:
            file.seek(int(self._offsets[place]))
            return file.read(int(self._sizes[place]))

    def name(self, place: int) -> str:
        """Tar file and member."""
        return f"{self._tars[self._tar[place]]}:{self._names[place]}"

    def key(self, place: int) -> str:
        """Tar file without its folder, and member."""
        return f"{Path(self._tars[self._tar[place]]).name}:{self._names[place]}"

    def sample(self, place: int) -> bytes:
        """Of the member."""
        return sampled_file(self._tars[self._tar[place]], int(self._offsets[place]), int(self._sizes[place]))

    def changed(self) -> Int64[np.ndarray, " _"]:
        """Each tar file."""
        return np.array([os.stat(path).st_mtime_ns for path in self._tars])


def find_shards(root: Path, split: str, *, labels: str = "auto", image: str | None = None) -> EncodedImages:
    """The images of the tar files ``root / split`` (with wildcards), of all in that folder, or named ``split-*.tar``.

    The class of a sample is its ``.cls`` member: a whole number, below 0 where it is hidden, or the name of a class.

    Keyword arguments:
        labels: ``none`` leaves all images without labels.
        image: what the name of a sample's image goes on with after its first dot, such as ``jpg`` or ``left.png``; None
            where each sample has one image whose name has no other dot.

    Raises:
        FileNotFoundError: there is no such tar file, or no image in them, or a numbered one is missing.
        ValueError: a tar file was cut or damaged, a sample has several images or only part of the samples a class, or
            what belongs to a sample, or what its class is, cannot be known.
    """
    if labels not in ("auto", "none"):
        raise ValueError(f"labels {labels} must be auto, which reads .cls members, or none.")
    root = Path(root)
    tars = _tars(root, split)
    left_out = Tally()
    extension = None if image is None else image.lower().removeprefix(".")
    samples = [sample for tar in tars for sample in _samples(tar, extension, labels == "auto", left_out)]
    if not samples:
        raise FileNotFoundError(
            f"No sample in {', '.join(map(str, tars))} has an image "
            + (f"ending in {', '.join(SUFFIXES)}" if extension is None else f"whose name goes on with {extension}")
            + f" ({left_out.inventory(0)})."
        )
    names = [sample.name for sample in samples]
    found = [sample.label for sample in samples]
    numbers, class_names = number_labels(found, f"the shards of {root}", names.__getitem__)
    storage = TarStorage(
        [sample.tar for sample in samples],
        names,
        [sample.offset for sample in samples],
        [sample.size for sample in samples],
    )
    return EncodedImages.of_all(
        storage, numbers, name=root.name, split=split, class_names=class_names, left_out=left_out
    )


def _tars(root: Path, split: str) -> list[Path]:
    patterns = [split, f"{split}/*.tar", f"{split}-*.tar", f"{split}.tar"]
    for pattern in patterns:
        found = sorted(root / path for path in glob.glob(pattern, root_dir=root))
        found = [path for path in found if path.is_file() or not path.exists()]  # a link to nothing is met when opened
        if found and pattern != split:  # else just these are asked for
            refuse_missing_parts(found)
        if found:
            return found
    looked = ", ".join(str(root / pattern) for pattern in patterns)
    raise FileNotFoundError(f"There is no tar file for split {split}: looked for {looked}.")


class _Sample(NamedTuple):
    """Where an image lies, and its class."""

    tar: Path
    name: str
    offset: int
    size: int
    label: int | str | None


def _samples(tar: Path, image: str | None, with_labels: bool, left_out: Tally) -> list[_Sample]:
    """The samples of a tar file that have an image, in the order of their images."""
    found = []
    with tar.open("rb") as file:
        for sample, members in _by_sample(tar, left_out).items():
            chosen = _image_of(f"{tar}:{sample}", members, image)
            if chosen is None:
                left_out.leave_out("samples without an image", sample)
                continue
            label = None
            if with_labels and "cls" in members:
                file.seek(members["cls"].offset_data)
                label = parse_label(file.read(min(members["cls"].size, 4096)), f"{tar}:{members['cls'].name}")
            member = members[chosen]
            found.append(_Sample(tar, member.name, member.offset_data, member.size, label))
            for extension, other in members.items():
                if extension not in (chosen, "cls"):
                    _leave_out(other.name, extension, left_out)
    return sorted(found, key=lambda sample: sample.offset)


def _by_sample(tar: Path, left_out: Tally) -> dict[str, dict[str, tarfile.TarInfo]]:
    """The files in a tar file by their sample, and those of each by what follows the first dot of their name."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in _members(tar):
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


def _members(tar: Path) -> list[tarfile.TarInfo]:
    """The headers of a tar file, which must be whole: Python's tarfile reads one that was cut as a shorter one."""
    try:
        with tarfile.open(tar, "r:") as archive:
            members, end = list(archive), archive.offset
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(f"{tar} is no whole, uncompressed tar file ({error}): write it again.") from error
    with tar.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(end)
        if any(file.read(2 * tarfile.RECORDSIZE)):
            raise ValueError(f"{tar} is damaged at byte {end}, or is two tar files in one: write it again.")
        if length < end + _MARK:
            raise ValueError(f"{tar} does not end as a tar file does: it was cut, or not written to its end.")
        padded = -(-(end + _MARK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        if length not in (end + _MARK, padded) or (members and _is_zeroed(file, members[-1])):
            raise ValueError(f"{tar} ends in {length - end} zeros: part of it was not written: write it again.")
    return members


def _is_zeroed(file: BinaryIO, member: tarfile.TarInfo) -> bool:
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
