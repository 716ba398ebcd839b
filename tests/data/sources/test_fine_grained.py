"""The published layouts, on small files that the tests write in them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssl_transfer.data import load_images
from ssl_transfer.data.sources.fine_grained import find_fine_grained


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path)


def write_cub(root: Path) -> None:
    base = root / "CUB_200_2011"
    classes = [1, 1, 37, 100, 101, 200, 200]
    paths = [f"{label:03d}.Bird/bird_{number}.jpg" for number, label in enumerate(classes)]
    for path in paths:
        write_image(base / "images" / path)
    base.joinpath("images.txt").write_text("".join(f"{n} {path}\n" for n, path in enumerate(paths, start=1)))
    # In another order than images.txt: the first column says which image it is.
    lines = [f"{n} {label}\n" for n, label in enumerate(classes, start=1)]
    base.joinpath("image_class_labels.txt").write_text("".join(reversed(lines)))


CARS = [1, 50, 98, 98, 99, 196, 196]


def mat(path: Path, names: list[str], classes: list[int], field: str) -> None:
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", field, "test"]
    table = np.zeros((1, len(names)), dtype=[(name, object) for name in fields])
    for place, (name, label) in enumerate(zip(names, classes, strict=True)):
        table[0, place] = (1.0, 1.0, 5.0, 4.0, float(label), name, float(place % 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": table})


def write_cars_in_one(root: Path) -> None:
    names = [f"car_ims/{number:06d}.jpg" for number in range(len(CARS))]
    mat(root / "stanford_cars" / "cars_annos.mat", names, CARS, "relative_im_path")
    for name in names:
        write_image(root / "stanford_cars" / name)


def write_cars_in_two(root: Path) -> None:
    base = root / "stanford_cars"
    parts = {"train": CARS[::2], "test": CARS[1::2]}  # both parts have images of all classes
    places = {
        "train": base / "devkit" / "cars_train_annos.mat",
        "test": base / "cars_test_annos_withlabels.mat",
    }
    for part, classes in parts.items():
        names = [f"{number:05d}.jpg" for number in range(1, len(classes) + 1)]
        mat(places[part], names, classes, "fname")
        for name in names:
            write_image(base / f"cars_{part}" / name)


def write_sop(root: Path) -> None:
    base = root / "Stanford_Online_Products"
    for split, classes in {"train": [1, 1, 2, 11318], "test": [11319, 11319, 22634]}.items():
        rows = [(n, label, 1, f"bicycle_final/{label}_{n}.JPG") for n, label in enumerate(classes, start=1)]
        for row in rows:
            write_image(base / row[3])
        lines = ["image_id class_id super_class_id path", *(" ".join(map(str, row)) for row in rows)]
        base.joinpath(f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n")


def write_in_shop(root: Path) -> None:
    base = root / "In-shop Clothes Retrieval Benchmark"
    rows = [
        ("id_00000001", "train"),
        ("id_00000002", "gallery"),
        ("id_00000002", "query"),
        ("id_00000004", "query"),
        ("id_00000004", "gallery"),
        ("id_00000001", "train"),
        ("id_00000005", "train"),
    ]
    lines = [str(len(rows)), "image_name item_id evaluation_status"]
    for number, (item, part) in enumerate(rows):
        name = f"img/WOMEN/Dresses/{item}/{number:02d}_1_front.jpg"
        write_image(base / "Img" / name)
        lines.append(f"{name}   {item} {part}")
    base.joinpath("Eval").mkdir()
    base.joinpath("Eval", "list_eval_partition.txt").write_text("\n".join(lines) + "\n")


def names_and_labels(encoded) -> list[tuple[str, int]]:
    paths = [Path(encoded.file_name(row)) for row in range(len(encoded))]
    assert all(path.is_file() for path in paths)
    return [(path.name, label) for path, label in zip(paths, encoded.labels.tolist(), strict=True)]


def test_cub_trains_on_its_first_hundred_species(tmp_path):
    write_cub(tmp_path)
    for root in (tmp_path, tmp_path / "CUB_200_2011"):
        train, test = (find_fine_grained("cub", root, split) for split in ("train", "test"))
        assert names_and_labels(train) == [("bird_0.jpg", 0), ("bird_1.jpg", 0), ("bird_2.jpg", 1), ("bird_3.jpg", 2)]
        assert names_and_labels(test) == [("bird_4.jpg", 0), ("bird_5.jpg", 1), ("bird_6.jpg", 1)]
        assert (train.classes, test.classes) == (3, 2)


@pytest.mark.parametrize("write", [write_cars_in_one, write_cars_in_two])
@pytest.mark.parametrize("below", ["", "stanford_cars"])
def test_both_layouts_of_cars_train_on_the_first_98_classes_of_all_images(tmp_path, write, below):
    write(tmp_path)
    train, test = (find_fine_grained("cars", tmp_path / below, split) for split in ("train", "test"))
    assert sorted(label for _, label in names_and_labels(train)) == [0, 1, 2, 2]
    assert sorted(label for _, label in names_and_labels(test)) == [0, 1, 1]
    assert len({split.file_name(row) for split in (train, test) for row in range(len(split))}) == len(CARS)


def test_an_image_of_cars_has_the_class_of_its_own_line(tmp_path):
    write_cars_in_two(tmp_path)
    train = find_fine_grained("cars", tmp_path, "train")
    names = [str(Path(train.file_name(row)).relative_to(tmp_path / "stanford_cars")) for row in range(len(train))]
    found = dict(zip(names, train.labels.tolist(), strict=True))
    # CARS[::2] is 1, 98, 99, 196 and CARS[1::2] is 50, 98, 196.
    assert found == {
        "cars_train/00001.jpg": 0,
        "cars_train/00002.jpg": 2,
        "cars_test/00001.jpg": 1,
        "cars_test/00002.jpg": 2,
    }


def test_products_come_in_their_published_split(tmp_path):
    write_sop(tmp_path)
    train, test = (find_fine_grained("sop", tmp_path, split) for split in ("train", "test"))
    assert [label for _, label in names_and_labels(train)] == [0, 0, 1, 2]
    assert names_and_labels(test) == [("11319_1.JPG", 0), ("11319_2.JPG", 0), ("22634_3.JPG", 1)]


def test_in_shop_asks_with_its_queries_and_searches_its_gallery(tmp_path):
    write_in_shop(tmp_path)
    train, test = (find_fine_grained("in_shop", tmp_path, split) for split in ("train", "test"))
    assert [label for _, label in names_and_labels(train)] == [0, 0, 1]
    assert names_and_labels(test) == [
        ("02_1_front.jpg", 0),
        ("03_1_front.jpg", 1),
        ("01_1_front.jpg", 0),
        ("04_1_front.jpg", 1),
    ]
    parts = [find_fine_grained("in_shop", tmp_path, split) for split in ("query", "gallery")]
    assert [entry for part in parts for entry in names_and_labels(part)] == names_and_labels(test)


def test_images_of_in_shop_know_how_many_of_them_ask(tmp_path):
    write_in_shop(tmp_path)
    train, test = (
        load_images("in_shop", tmp_path, split=split, download=False, image_size=8) for split in ("train", "test")
    )
    assert (train.queries, test.queries) == (None, 2) and test.middle(4).queries == 2
    assert test.labels.tolist() == [0, 1, 0, 1] and test.pixels.shape == (4, 3, 8, 8)


def test_folders_of_classes_are_split_by_class_in_the_order_of_their_names(tmp_path):
    for name in ("crow", "auk", "dove", "bunting"):
        for number in (2, 1):
            write_image(tmp_path / name / f"{name}_{number}.png")
    (tmp_path / "auk" / "notes.txt").write_text("no image")
    train, test = (find_fine_grained("folder", tmp_path, split, train_classes=3) for split in ("train", "test"))
    assert names_and_labels(train) == [
        (f"{name}_{n}.png", label) for label, name in enumerate(["auk", "bunting", "crow"]) for n in (1, 2)
    ]
    assert names_and_labels(test) == [("dove_1.png", 0), ("dove_2.png", 0)]
    for wrong in (None, 0, 4):
        with pytest.raises(ValueError, match=f"train_classes is {wrong}.* has 4 classes.* 1 to 3"):
            find_fine_grained("folder", tmp_path, "train", train_classes=wrong)


def test_folders_of_classes_may_be_links_and_hidden_ones_are_none(tmp_path):
    for place in ("birds/auk/1.png", "birds/.thumbs/1.png", "disk/crow/2.png", "birds/dove/3.png"):
        write_image(tmp_path / place)
    (tmp_path / "birds" / "crow").symlink_to(tmp_path / "disk" / "crow")
    (tmp_path / "birds" / "empty").mkdir()
    train, test = (
        find_fine_grained("folder", tmp_path / "birds", split, train_classes=2) for split in ("train", "test")
    )
    assert names_and_labels(train) == [("1.png", 0), ("2.png", 1)] and names_and_labels(test) == [("3.png", 0)]
    assert [part.first for part in train.inventory.left_out] == [(".thumbs/",)]


def test_an_image_beside_folders_of_classes_is_refused_or_left_out(tmp_path):
    for place in ("auk/1.png", "dove/2.png", "cover.png"):
        write_image(tmp_path / place)
    with pytest.raises(ValueError, match=r"1 of them beside its class folders \(the first is cover\.png\)"):
        find_fine_grained("folder", tmp_path, "train", train_classes=1)
    images = load_images("folder", tmp_path, split="train", image_size=8, train_classes=1, labels="folders")
    assert images.labels.tolist() == [0] and images.inventory.left_out[0].first == ("cover.png",)


@pytest.mark.parametrize(
    "dataset, write, lost, words",
    [
        ("cub", write_cub, "CUB_200_2011/images.txt", "cub lacks images.txt in .*CUB_200_2011"),
        ("cub", write_cub, "CUB_200_2011/images/100.Bird/bird_3.jpg", "cub lacks 1 of the 4 images.*bird_3.jpg"),
        (
            "cars",
            write_cars_in_one,
            "stanford_cars/cars_annos.mat",
            "cars lacks cars_train_annos.mat .or cars_annos.mat",
        ),
        ("cars", write_cars_in_two, "stanford_cars/cars_test_annos_withlabels.mat", "cars lacks cars_test_annos_withl"),
        ("sop", write_sop, "Stanford_Online_Products/Ebay_train.txt", "sop lacks Ebay_train.txt"),
        (
            "in_shop",
            write_in_shop,
            "In-shop Clothes Retrieval Benchmark/Eval/list_eval_partition.txt",
            "in_shop lacks list_eval_partition.txt in",
        ),
    ],
)
def test_a_missing_file_is_named_in_one_sentence(tmp_path, dataset, write, lost, words):
    write(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(FileNotFoundError, match=words) as error:
        find_fine_grained(dataset, tmp_path, "train")
    assert "root elsewhere" in str(error.value) and "\n" not in str(error.value)


def test_a_list_that_cannot_be_read_is_named_with_its_line(tmp_path):
    write_sop(tmp_path)
    listing = tmp_path / "Stanford_Online_Products" / "Ebay_train.txt"
    listing.write_text(listing.read_text() + "5 3\n")
    with pytest.raises(ValueError, match="Ebay_train.txt, line 6: '5 3' does not have 4 columns"):
        find_fine_grained("sop", tmp_path, "train")
    write_cars_in_one(tmp_path)
    savemat(tmp_path / "stanford_cars" / "cars_annos.mat", {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="cars_annos.mat does not hold annotations"):
        find_fine_grained("cars", tmp_path, "train")


def test_a_list_that_is_not_whole_is_refused(tmp_path):
    write_cub(tmp_path)
    listing = tmp_path / "CUB_200_2011" / "image_class_labels.txt"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ValueError, match="names 7 images and image_class_labels.txt classes of 6"):
        find_fine_grained("cub", tmp_path, "train")
    write_in_shop(tmp_path)
    listing = tmp_path / "In-shop Clothes Retrieval Benchmark" / "Eval" / "list_eval_partition.txt"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="announces 7 images and lists 6: get the list again"):
        find_fine_grained("in_shop", tmp_path, "train")


def test_unknown_names_are_refused_with_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="choose cub, cars, sop, in_shop or folder"):
        find_fine_grained("birds", tmp_path, "train")
    with pytest.raises(ValueError, match="has no split valid: choose train, test"):
        find_fine_grained("cub", tmp_path, "valid")
