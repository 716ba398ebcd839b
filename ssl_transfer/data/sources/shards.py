"""Tar files of images as webdataset lays them out, reached by place through an index of their members.

A sample is the members that share a name up to its first dot: ``000017.jpg`` and ``000017.cls``, a class as a decimal
number. webdataset itself reads shards from front to end and shuffles within a buffer, so what it gives at some step
depends on the workers and on what was read before; here the members' offsets are read once, from the headers alone,
and any image is one seek away.
"""

import glob
import tarfile
from pathlib import Path

import numpy as np

from ssl_transfer.data.sources.decode import SUFFIXES
from ssl_transfer.data.sources.encoded import EncodedImages


class TarStorage:
    """Images inside tar files: which file, where in it, and how long."""

    def __init__(self, tars: list[Path], names: list[str], tar: list[int], offsets: list[int], sizes: list[int]):
        self.tars = [str(path) for path in tars]
        self.names = names
        self.tar, self.offsets, self.sizes = np.array(tar), np.array(offsets), np.array(sizes)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, place: int) -> bytes:
        """The member's content."""
        with open(self.tars[self.tar[place]], "rb", buffering=0) as file:
            file.seek(int(self.offsets[place]))
            return file.read(int(self.sizes[place]))

    def name(self, place: int) -> str:
        """Tar file and member."""
        return f"{self.tars[self.tar[place]]}:{self.names[place]}"

    def key(self, place: int) -> str:
        """Tar file without its folder, member and size."""
        return f"{Path(self.tars[self.tar[place]]).name}:{self.names[place]} {self.sizes[place]}"

    def modified(self) -> float:
        """When the newest tar file was changed."""
        return max(Path(path).stat().st_mtime for path in self.tars)


def find_shards(root: Path, split: str) -> EncodedImages:
    """The images of the tar files ``root / split`` (with wildcards), of all in that folder, or named ``split-*.tar``.

    Raises:
        FileNotFoundError: there is no such tar file, or no image in them.
        ValueError: a tar file is damaged, or only some images have a class.
    """
    root = Path(root)
    tars = _tars(root, split)
    names: list[str] = []
    tar: list[int] = []
    offsets: list[int] = []
    sizes: list[int] = []
    labels: list[int | None] = []
    for number, path in enumerate(tars):
        images, classes = _read_headers(path)
        for member in images:
            names.append(member.name)
            tar.append(number)
            offsets.append(member.offset_data)
            sizes.append(member.size)
            labels.append(classes.get(_sample(member.name)))
    if not names:
        raise FileNotFoundError(f"No member of {', '.join(map(str, tars))} ends in {', '.join(SUFFIXES)}.")
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if missing and len(missing) < len(names):
        raise ValueError(
            f"{len(missing)} of {len(names)} images in the shards of {root} have no class, the first is {missing[0]}: "
            "give each a .cls member with a class of 0 or more, or none."
        )
    known = None if missing else [label for label in labels if label is not None]
    members = TarStorage(tars, names, tar, offsets, sizes)
    return EncodedImages.of_all(members, known, name=root.name, split=split)


def _tars(root: Path, split: str) -> list[Path]:
    patterns = [root / split, root / split / "*.tar", root / f"{split}-*.tar", root / f"{split}.tar"]
    for pattern in patterns:
        found = sorted(Path(path) for path in glob.glob(str(pattern)) if Path(path).is_file())
        if found:
            return found
    raise FileNotFoundError(f"There is no tar file for split {split}: looked for {', '.join(map(str, patterns))}.")


def _read_headers(path: Path) -> tuple[list[tarfile.TarInfo], dict[str, int]]:
    """The members that are images, and the class of each sample that has one; a negative one is none."""
    images, classes = [], {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.name.lower().endswith(SUFFIXES):
                    images.append(member)
                elif member.name.endswith(".cls"):
                    content = archive.extractfile(member)
                    assert content is not None
                    label = int(content.read())
                    if label >= 0:  # negative: hidden
                        classes[_sample(member.name)] = label
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"{path} is no whole, uncompressed tar file of samples ({error}): write it again.") from error
    if images and images[-1].offset_data + images[-1].size > path.stat().st_size:
        raise ValueError(f"{path} ends within its last image {images[-1].name}: get it again.")
    return images, classes


def _sample(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]
