"""Miniatures of published data sets: a few small images in the layout that the data set is published in."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

VOC = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person".split()
VOC += ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]


def image(path: Path, shade: int = 0) -> None:
    """A small picture of colored noise, another for each ``shade``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    lines(base / "variants.txt", "707-320", "Cessna 172", "Yak-42")
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{number}{place:06d}" for place in range(6)]
        for place, name in enumerate(names):
            image(base / "images" / f"{name}.jpg", 10 * number + place)
        variants = ("Yak-42", "Cessna 172", "707-320") * 2
        lines(base / f"images_variant_{split}.txt", *map(" ".join, zip(names, variants, strict=True)))


def caltech101(root: Path) -> None:
    base = root / "caltech101" / "101_ObjectCategories"
    for number, name in enumerate(("BACKGROUND_Google", "Faces", "accordion")):
        for place in range(1, 34):
            image(base / name / f"image_{place:04d}.jpg", 100 * number + place)


def cub200(root: Path) -> None:
    base = root / "CUB_200_2011"
    paths = [f"{label:03d}.Bird/bird_{place}.jpg" for label in (1, 2, 200) for place in range(5)]
    for place, path in enumerate(paths):
        image(base / "images" / path, place)
    lines(base / "images.txt", *(f"{place} {path}" for place, path in enumerate(paths, 1)))
    labels = [int(path[:3]) for path in paths]
    lines(base / "image_class_labels.txt", *(f"{place} {label}" for place, label in enumerate(labels, 1)))
    lines(base / "train_test_split.txt", *(f"{place} {int(place % 5 < 3)}" for place in range(1, len(paths) + 1)))


def dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{name}/{name}_{number}{place}.jpg" for name in ("banded", "zigzagged") for place in range(3)]
        for place, name in enumerate(names):
            image(base / "images" / name, 10 * number + place)
        lines(base / "labels" / f"{split}1.txt", *names)


def eurosat(root: Path) -> None:
    for number, name in enumerate(("AnnualCrop", "Forest", "River")):
        for place in range(1, 11):
            image(root / "eurosat" / "2750" / name / f"{name}_{place}.jpg", 20 * number + place)


def flowers102(root: Path) -> None:
    base = root / "flowers-102"
    labels = np.arange(18) % 3 + 1
    for place in range(1, 19):
        image(base / "jpg" / f"image_{place:05d}.jpg", place)
    savemat(base / "imagelabels.mat", {"labels": labels[None]})
    ids = np.arange(1, 19)
    savemat(base / "setid.mat", {"trnid": ids[None, 12:], "valid": ids[None, 6:12], "tstid": ids[None, :6]})


def food101(root: Path) -> None:
    base = root / "food-101"
    for number, split in enumerate(("train", "test")):
        listed = {name: [f"{name}/{number}{place}" for place in range(3)] for name in ("apple_pie", "waffles")}
        for place, name in enumerate(path for paths in listed.values() for path in paths):
            image(base / "images" / f"{name}.jpg", 10 * number + place)
        lines(base / "meta" / f"{split}.json", json.dumps(listed))


def gtsrb(root: Path) -> None:
    base = root / "gtsrb"
    for label in (0, 1):
        for place in range(3):
            image(base / "GTSRB" / "Training" / f"{label:05d}" / f"00000_{place:05d}.ppm", 10 * label + place)
    for place in range(4):
        image(base / "GTSRB" / "Final_Test" / "Images" / f"{place:05d}.ppm", 50 + place)
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    lines(base / "GT-final_test.csv", header, *(f"{place:05d}.ppm;24;20;1;1;20;20;{place % 2}" for place in range(4)))


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for number, split in enumerate(("trainval", "test")):
        names = [f"{name}_{number}{place}" for name in ("Abyssinian", "yorkshire_terrier") for place in range(3)]
        for place, name in enumerate(names):
            image(base / "images" / f"{name}.jpg", 10 * number + place)
        rows = (f"{name} {1 if name[0] == 'A' else 37} {1 if name[0] == 'A' else 2} 1" for name in names)
        lines(base / "annotations" / f"{split}.txt", *rows)


def stanford_cars(root: Path) -> None:
    labels, tested = [1, 196, 1, 196, 1, 196], [0, 0, 0, 0, 1, 1]
    names = [f"car_ims/{place:06d}.jpg" for place in range(1, 7)]
    table = np.zeros((1, 6), dtype=[(name, object) for name in ("relative_im_path", "bbox_x1", "class", "test")])
    for place, (name, label, test) in enumerate(zip(names, labels, tested, strict=True)):
        image(root / "stanford_cars" / name, place)
        table[0, place] = (name, 1.0, float(label), float(test))
    savemat(root / "stanford_cars" / "cars_annos.mat", {"annotations": table})


def sun397(root: Path) -> None:
    base = root / "SUN397"
    classes = ("/a/abbey", "/a/apartment_building/outdoor")
    lines(base / "ClassName.txt", *classes)
    for number, listing in enumerate(("Training_01", "Testing_01")):
        paths = [f"{name}/sun_a{number}{place}.jpg" for name in classes for place in range(3)]
        for place, path in enumerate(paths):
            image(base / path[1:], 10 * number + place)
        lines(base / f"{listing}.txt", *paths)
    image(base / "a" / "abbey" / "sun_in_no_partition.jpg")


def voc2007(root: Path) -> None:
    base = root / "VOCdevkit" / "VOC2007"
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{number}{place:05d}" for place in range(8)]
        for place, name in enumerate(names):
            image(base / "JPEGImages" / f"{name}.jpg", 10 * number + place)
        lines(base / "ImageSets" / "Main" / f"{split}.txt", *names)
        for column, kind in enumerate(VOC):
            rows = [f"{name} {voc_presence(column, place):2d}" for place, name in enumerate(names)]
            lines(base / "ImageSets" / "Main" / f"{kind}_{split}.txt", *rows)


def voc_presence(column: int, place: int) -> int:
    """Whether an image has a class: the next as an object that is difficult."""
    return {0: 1, 1: 0}.get((place - column) % 4, -1)


def saved(name: str, *splits: str) -> Callable[[Path], None]:
    """A data set of Hugging Face: Parquet files of each split, as the Hub has them."""

    def write(root: Path) -> None:
        import datasets

        folder = root / name
        for number, split in enumerate(splits):
            pictures = []
            for place in range(6):
                path = root / "made" / name / f"{number}{place}.png"
                image(path, 10 * number + place)
                pictures.append({"bytes": path.read_bytes(), "path": None})
            features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])}
            columns = {"image": pictures, "label": [place % 2 for place in range(6)]}
            table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
            (folder / "data").mkdir(parents=True, exist_ok=True)
            table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))

    return write


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "aircraft": aircraft,
    "caltech101": caltech101,
    "cub200": cub200,
    "dtd": dtd,
    "eurosat": eurosat,
    "flowers102": flowers102,
    "food101": food101,
    "gtsrb": gtsrb,
    "pcam": saved("pcam", "train", "validation", "test"),
    "pets": pets,
    "resisc45": saved("resisc45", "train", "validation", "test"),
    "stanford_cars": stanford_cars,
    "sun397": sun397,
    "voc2007": voc2007,
}
