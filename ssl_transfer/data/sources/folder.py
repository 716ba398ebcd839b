"""Any tree of image files."""

import os
from pathlib import Path

from ssl_transfer.data.sources.decode import SUFFIXES
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.inventory import Tally
from ssl_transfer.data.sources.listing import list_files

# Sub-folders of these names are splits, in whatever letters, and not classes of a split that is the whole tree.
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "unlabeled"}


def find_folder(root: Path, split: str, *, labels: str = "auto") -> EncodedImages:
    """All images under ``root / split`` (a path of its own where it is absolute).

    The split ``train`` is ``root`` itself where no sub-folder is named like a split. An image's class is the name of
    the first sub-folder on its way; where all images lie in no sub-folder they have none.

    Keyword arguments:
        labels: where some images lie in sub-folders and others beside them, ``folders`` leaves those beside them out;
            ``none`` takes all, without labels, as it does with any other tree; ``auto`` refuses to choose.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: images lie beside the class folders, or as :func:`list_files`.
    """
    root = Path(root)
    top = _top(root, split)
    files, left_out = list_files(top)
    if not files:
        raise FileNotFoundError(
            f"There is no image under {top}: it must hold files ending in {', '.join(SUFFIXES)} "
            f"({left_out.inventory(0)})."
        )
    files, classes = with_classes(files, top, labels, left_out)
    if classes is None:
        return EncodedImages.of_files(files, None, root=top, name=root.name, split=split, left_out=left_out)
    names = sorted(set(classes))
    number = {name: place for place, name in enumerate(names)}
    return EncodedImages.of_files(
        files,
        [number[name] for name in classes],
        root=top,
        name=root.name,
        split=split,
        class_names=names,
        left_out=left_out,
    )


def with_classes(files: list[str], top: Path, labels: str, left_out: Tally) -> tuple[list[str], list[str] | None]:
    """The files that are taken, given by their paths below ``top``, and the class of each, or none.

    Raises:
        ValueError: ``labels`` is none of the choices of :func:`find_folder`, or one has to be made.
    """
    if labels not in ("auto", "folders", "none"):
        raise ValueError(f"labels {labels} must be auto, folders or none.")
    beside = [path for path in files if os.sep not in path]
    if labels == "none" or (labels == "auto" and len(beside) == len(files)):
        return files, None
    if len(beside) == len(files):
        raise ValueError(f"labels is folders, but no image under {top} lies in a sub-folder.")
    if beside and labels == "auto":
        raise ValueError(
            f"{len(files)} images lie under {top}, {len(beside)} of them beside its class folders (the first is "
            f"{beside[0]}): move those, or choose labels=folders to leave them out, or labels=none to take all images "
            "without labels."
        )
    for path in beside:
        left_out.leave_out("images beside the class folders", path)
    inside = [path for path in files if os.sep in path]
    return inside, [path.split(os.sep, 1)[0] for path in inside]


def _top(root: Path, split: str) -> Path:
    top = root / split
    if top.is_dir():
        return top
    splits = sorted(path.name for path in root.glob("*") if path.is_dir() and path.name.lower() in _SPLITS)
    if split == "train" and root.is_dir() and not splits:
        return root
    there_are = f": there are {', '.join(splits)}" if splits else ""
    raise FileNotFoundError(f"There is no folder {top} for split {split}{there_are}.")
