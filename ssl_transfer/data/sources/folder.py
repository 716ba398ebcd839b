"""Any tree of image files."""

from pathlib import Path

from ssl_transfer.data.sources.decode import SUFFIXES
from ssl_transfer.data.sources.encoded import EncodedImages


def find_folder(root: Path, split: str) -> EncodedImages:
    """All images under ``root / split`` (a path of its own where it is absolute).

    The split ``train`` is ``root`` itself where neither such a folder nor one named ``test`` is. Where every image lies
    in a sub-folder, the first sub-folder's name is its class; else none has a label.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    root = Path(root)
    top = root / split
    if not top.is_dir() and split == "train" and not (root / "test").is_dir():
        top = root
    if not top.is_dir():
        raise FileNotFoundError(f"There is no folder {top} for split {split}.")
    files = sorted(path for path in top.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise FileNotFoundError(f"There is no image under {top}: it must hold files ending in {', '.join(SUFFIXES)}.")
    below = [path.relative_to(top).parts for path in files]
    labels, names = None, None
    if all(len(parts) > 1 for parts in below):
        names = sorted({parts[0] for parts in below})
        number = {name: place for place, name in enumerate(names)}
        labels = [number[parts[0]] for parts in below]
    return EncodedImages.of_files(files, labels, root=top, name=root.name, split=split, class_names=names)
