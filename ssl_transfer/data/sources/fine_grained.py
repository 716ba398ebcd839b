"""Fine-grained data sets in the layouts they are published in: which files are in a split, and of which class each is.

Classes for training and classes for testing are disjoint, as metric learning has it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.folder import with_classes
from ssl_transfer.data.sources.inventory import Tally
from ssl_transfer.data.sources.listing import list_files

Entry = tuple[Path, int]


def find_fine_grained(
    dataset: str, root: Path, split: str, *, train_classes: int | None = None, labels: str = "auto"
) -> EncodedImages:
    """The images of a split, train or test, of ``cub``, ``cars``, ``sop``, ``in_shop`` or ``folder``.

    =========  ==========================================================================  ==================
    data set   its files below ``root``, or below the folder of ``root`` named here         classes for training
    =========  ==========================================================================  ==================
    cub        CUB_200_2011: images.txt, image_class_labels.txt, images/                    the first 100 of 200
    cars       stanford_cars: cars_annos.mat, car_ims/; or the older cars_train_annos.mat   the first 98 of 196
               and cars_test_annos_withlabels.mat, in it or in devkit/, cars_train/, cars_test/
    sop        Stanford_Online_Products: Ebay_train.txt, Ebay_test.txt                      11,318 of 22,634
    in_shop    In-shop Clothes Retrieval Benchmark: Eval/list_eval_partition.txt, Img/img/  3,997 of 7,982
               (or both without Eval/ and Img/)
    folder     a folder of images for each class                                            ``train_classes``
    =========  ==========================================================================  ==================

    The first ``train_classes`` of the sorted classes of ``folder`` are for training, the others for testing. In_shop
    has the splits query and gallery too, with the same numbers for the same items; its test split is both of them.

    Keyword arguments:
        train_classes: of ``folder``, as above; the others have their published split.
        labels: of ``folder``: ``folders`` leaves images beside the class folders out, ``auto`` refuses them.

    Raises:
        FileNotFoundError: a file of the layout, or an image that it lists, is missing.
        ValueError: there is no such data set or split, a list cannot be read or is not whole, or a folder is not one of
            classes (:func:`ssl_transfer.data.sources.folder.find_folder`).
    """
    splits = {"train": ("train",), "test": ("test",)} if dataset != "in_shop" else _IN_SHOP
    if split not in splits:
        raise ValueError(f"dataset {dataset} has no split {split}: choose {', '.join(splits)}.")
    root = Path(root)
    left_out = Tally()
    if dataset == "folder":
        entries, left_out = _of_folders(root, split, train_classes, labels)
    elif dataset in PUBLISHED:
        entries = PUBLISHED[dataset](root, split)
        _check(entries, dataset, split)
    else:
        raise ValueError(f"dataset {dataset} has no published layout here: choose {', '.join(PUBLISHED)} or folder.")
    paths = [str(path.relative_to(root)) for path, _ in entries]
    numbers = [label for _, label in entries]
    return EncodedImages.of_files(paths, numbers, root=root, name=dataset, split=split, left_out=left_out)


def _cub(root: Path, split: str) -> list[Entry]:
    base = _base(root, "cub", "CUB_200_2011", "images.txt", "image_class_labels.txt")
    labels = {image: int(label) for image, label in published_rows(base / "image_class_labels.txt", columns=2)}
    images = dict(published_rows(base / "images.txt", columns=2))
    if images.keys() != labels.keys():
        raise ValueError(
            f"images.txt in {base} names {len(images)} images and image_class_labels.txt classes of {len(labels)}, "
            "which are not the same: get both again."
        )
    entries = [(base / "images" / path, labels[image]) for image, path in images.items()]
    return _by_class(entries, split, first_test_class=101)


def _cars(root: Path, split: str) -> list[Entry]:
    return _by_class([(path, label) for path, label, _ in cars_entries(root)], split, first_test_class=99)


def cars_entries(root: Path) -> list[tuple[Path, int, bool]]:
    """All images of Cars-196, with their class from 1 on, and whether they are of its published test split.

    Raises:
        FileNotFoundError: an annotation file is missing.
        ValueError: one cannot be read.
    """
    bases = (root / "stanford_cars", root)
    for base in bases:
        if (path := base / "cars_annos.mat").is_file():
            rows = _annotations(path, "relative_im_path", "class", "test")
            return [(base / str(name), int(label), bool(test)) for name, label, test in rows]
    listings = ("cars_train_annos.mat", "cars_test_annos_withlabels.mat")
    found = []
    for listing, folder in zip(listings, ("cars_train", "cars_test"), strict=True):
        places = [(base, base / below / listing) for base in bases for below in ("devkit", "")]
        held = next(((path, base) for base, path in places if path.is_file()), None)
        if held is None:
            raise FileNotFoundError(
                f"cars lacks {listing} (or cars_annos.mat instead of it) in {bases[0]}, its devkit, and {root}: put "
                "the published files there or point root elsewhere."
            )
        path, base = held
        rows = _annotations(path, "fname", "class")
        found += [(base / folder / str(name), int(label), folder == "cars_test") for name, label in rows]
    return found


def _annotations(path: Path, *fields: str) -> list[tuple[Any, ...]]:
    from scipy.io import loadmat  # slow to import, and only Cars-196 needs it

    try:
        table = loadmat(path, squeeze_me=True)["annotations"].reshape(-1)
        return list(zip(*(table[field] for field in fields), strict=True))
    except (KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"{path} does not hold annotations with {' and '.join(fields)} ({error}): get the published file again."
        ) from error


def _sop(root: Path, split: str) -> list[Entry]:
    listing = f"Ebay_{split}.txt"
    base = _base(root, "sop", "Stanford_Online_Products", listing)
    rows = published_rows(base / listing, columns=4, header=1)
    return _numbered([(base / path, int(label)) for _, label, _, path in rows])


_IN_SHOP = {"train": ("train",), "test": ("query", "gallery"), "query": ("query",), "gallery": ("gallery",)}


def _in_shop(root: Path, split: str) -> list[Entry]:
    listing = "list_eval_partition.txt"
    tops = (root / "In-shop Clothes Retrieval Benchmark", root)
    places = [(top, top / below / listing) for top in tops for below in ("Eval", "")]
    found = next(((top, path) for top, path in places if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"in_shop lacks {listing} in {', '.join(str(path.parent) for _, path in places)}: put the published files "
            "there or point root elsewhere."
        )
    top, path = found
    images = top / "Img" if (top / "Img").is_dir() else top
    parts: dict[str, list[Entry]] = {"train": [], "query": [], "gallery": []}
    rows = list(published_rows(path, columns=3, header=2))
    announced = path.read_text().split(maxsplit=1)[:1]
    if announced != [str(len(rows))]:
        raise ValueError(f"{path} announces {' '.join(announced)} images and lists {len(rows)}: get the list again.")
    for name, item, part in rows:
        if part not in parts:
            raise ValueError(f"{path} puts {name} into {part!r}: it may be train, query or gallery.")
        parts[part].append((images / name, int(item.removeprefix("id_"))))
    # The same item has the same number in queries and gallery, whichever of them is asked for.
    items = {label for part in _IN_SHOP["train" if split == "train" else "test"] for _, label in parts[part]}
    return _numbered([entry for part in _IN_SHOP[split] for entry in parts[part]], items)


PUBLISHED: dict[str, Callable[[Path, str], list[Entry]]] = {
    "cub": _cub,
    "cars": _cars,
    "sop": _sop,
    "in_shop": _in_shop,
}


def _of_folders(root: Path, split: str, train_classes: int | None, labels: str) -> tuple[list[Entry], Tally]:
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}: it must hold a folder of images for each class.")
    files, left_out = list_files(root)
    files, classes = with_classes(files, root, labels, left_out)
    names = sorted(set(classes or ()))
    if train_classes is None or not 0 < train_classes < len(names):
        raise ValueError(
            f"train_classes is {train_classes}, but {root} has {len(names)} classes: choose how many of them are for "
            f"training, 1 to {len(names) - 1}."
        )
    chosen = names[:train_classes] if split == "train" else names[train_classes:]
    number = {name: place for place, name in enumerate(chosen)}
    entries = [(root / path, number[name]) for path, name in zip(files, classes or (), strict=True) if name in number]
    return entries, left_out


def _by_class(entries: Sequence[Entry], split: str, *, first_test_class: int) -> list[Entry]:
    return _numbered([entry for entry in entries if (entry[1] < first_test_class) == (split == "train")])


def _numbered(entries: Sequence[Entry], labels: Collection[int] | None = None) -> list[Entry]:
    """The entries with their classes, or all of ``labels``, numbered from 0 in their published order."""
    number = {label: place for place, label in enumerate(sorted(labels or {label for _, label in entries}))}
    return [(path, number[label]) for path, label in entries]


def _check(entries: Sequence[Entry], dataset: str, split: str) -> None:
    missing = [path for path, _ in entries if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{dataset} lacks {len(missing)} of the {len(entries)} images of its {split} split, the first of them is "
            f"{missing[0]}: unpack the images there or point root elsewhere."
        )
    if not entries:
        raise ValueError(f"dataset {dataset} has no image in its {split} split: is its list complete?")


def _base(root: Path, dataset: str, folder: str, *listings: str) -> Path:
    """``root / folder`` if that is there, else ``root``: whichever it is must hold the lists."""
    base = root / folder if (root / folder).is_dir() else root
    missing = [listing for listing in listings if not (base / listing).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{dataset} lacks {', '.join(missing)} in {base}: put the published folder {folder} into root, or point "
            "root elsewhere."
        )
    return base


def published_rows(path: Path, *, columns: int, header: int = 0) -> Iterator[list[str]]:
    """The lines of a list after its header, each split into its columns; the last may hold spaces.

    Raises:
        ValueError: a line has fewer columns.
    """
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if number <= header or not line.strip():
            continue
        row = line.split(maxsplit=columns - 1)
        if len(row) != columns:
            raise ValueError(f"{path}, line {number}: {line!r} does not have {columns} columns; get the list again.")
        yield [value.strip() for value in row]
