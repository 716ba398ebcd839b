import logging

import pytest

from ssl_transfer.data import Inventory, load_images
from ssl_transfer.data.sources.inventory import LeftOut


def load(root, **options):
    return load_images("folder", root, **dict(split="train", image_size=16) | options)


def test_sub_folders_are_classes_in_alphabetical_order(tmp_path, save):
    for number, place in enumerate(["cat/b.png", "ant/a.png", "cat/deep/c.webp", "dog/d.jpg"]):
        save(tmp_path / "train" / place, 30 + number, 30)
    images = load(tmp_path)
    assert images.labels.tolist() == [0, 1, 1, 2] and images.classes == 3
    assert images.pixels.shape == (4, 3, 16, 16)


def test_images_that_all_lie_in_no_sub_folder_have_no_labels(tmp_path, save):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    images = load(tmp_path)
    assert len(images) == 2 and images.labels is None and images.classes is None


@pytest.fixture
def mixed(tmp_path, save):
    """Two classes of one image each, and an image beside them."""
    for place in ("train/ant/0.png", "train/bee/1.png", "train/cover.png"):
        save(tmp_path / place)
    return tmp_path


def test_images_beside_class_folders_are_refused_with_the_choices(mixed):
    with pytest.raises(
        ValueError, match=r"3 images .*, 1 of them beside .*cover\.png\): .*labels=folders .*labels=none"
    ):
        load(mixed)


def test_images_beside_class_folders_are_left_out_or_all_taken_without_labels_if_asked(mixed, caplog):
    images = load(mixed, labels="folders")
    assert images.labels.tolist() == [0, 1] and images.class_names == ("ant", "bee")
    assert images.inventory == Inventory(2, (LeftOut("images beside the class folders", 1, ("cover.png",)),))
    assert "images taken: 2; left out: images beside the class folders: 1 (cover.png)" in caplog.text
    images = load(mixed, labels="none")
    assert len(images) == 3 and images.labels is None and images.inventory == Inventory(3)
    with pytest.raises(ValueError, match="labels tags must be auto, folders or none"):
        load(mixed, labels="tags")
    (mixed / "flat").mkdir()
    (mixed / "train" / "cover.png").rename(mixed / "flat" / "cover.png")
    with pytest.raises(ValueError, match="labels is folders, but no image under .*flat lies in a sub-folder"):
        load(mixed, split="flat", labels="folders")


def test_what_is_left_out_is_said_and_hidden_files_are_only_counted(tmp_path, save, caplog):
    save(tmp_path / "train" / "ant" / "0.png")
    (tmp_path / "train" / ".DS_Store").write_text("")
    images = load(tmp_path)
    assert [(part.count, part.first) for part in images.inventory.left_out] == [(1, (".DS_Store",))] and not caplog.text
    (tmp_path / "train" / "bee").mkdir()
    (tmp_path / "train" / "bee" / "0.heic").write_text("")
    for options in ({}, {"resident": False}, {"decode": False}):
        caplog.clear()
        assert load(tmp_path, **options).inventory.left_out[0] == LeftOut("files ending in .heic", 1, ("bee/0.heic",))
        assert ("files ending in .heic: 1 (bee/0.heic)" in caplog.text) == ("decode" not in options)


def test_a_link_to_a_folder_is_a_class_and_a_hidden_folder_is_none(tmp_path, save):
    for place in ("disk/ant/0.png", "photos/train/bee/1.png", "photos/train/.ipynb_checkpoints/1.png"):
        save(tmp_path / place)
    (tmp_path / "photos" / "train" / "ant").symlink_to(tmp_path / "disk" / "ant")
    images = load(tmp_path / "photos")
    assert images.class_names == ("ant", "bee") and images.labels.tolist() == [0, 1]


def test_each_split_reads_its_own_folder(tmp_path, save):
    save(tmp_path / "train" / "a.png")
    save(tmp_path / "test" / "b.png")
    save(tmp_path / "test" / "c.png")
    assert len(load(tmp_path)) == 1 and len(load(tmp_path, split="test")) == 2


def test_a_tree_without_a_test_folder_has_no_test_split(tmp_path, save):
    save(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="no folder .*test"):
        load(tmp_path, split="test")


def test_a_folder_without_images_is_refused(tmp_path, save):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(FileNotFoundError, match=r"no image under .*files ending in \.txt: 1 \(notes\.txt\)"):
        load(tmp_path)


@pytest.fixture
def with_broken_files(tmp_path, save):
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.jpg")
    whole = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.png").write_bytes(b"not an image")
    return tmp_path


def test_broken_files_are_listed_in_one_error(with_broken_files):
    with pytest.raises(ValueError, match=r"2 of 4 images cannot be decoded: .*b\.jpg.*d\.png") as error:
        load(with_broken_files)
    assert "a.jpg" not in str(error.value)


def test_broken_files_are_skipped_and_reported_if_asked(with_broken_files, caplog):
    with caplog.at_level(logging.WARNING):
        images = load(with_broken_files, on_error="skip")
    assert len(images) == 2
    assert "2 of 4 images skipped" in caplog.text and "b.jpg" in caplog.text
    names = tuple(str(with_broken_files / name) for name in ("b.jpg", "d.png"))
    assert images.inventory == Inventory(2, (LeftOut("that cannot be decoded", 2, names),))


def test_a_long_list_of_broken_files_ends_with_their_number(tmp_path):
    for number in range(80):
        (tmp_path / f"{number:02}.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"80 of 80 images cannot be decoded: .*/49\.png \([^)]*\) and 30 more: mend"):
        load(tmp_path)


def test_a_link_to_nothing_is_an_image_that_cannot_be_decoded(tmp_path, save):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("nowhere.png")
    with pytest.raises(
        ValueError, match=r"1 of 2 .*b\.png \(cannot be read: it is a link to a file that is not there\)"
    ):
        load(tmp_path)
    assert len(load(tmp_path, on_error="skip")) == 1


def test_only_broken_files_are_an_error_even_if_skipped(tmp_path, save):
    (tmp_path / "d.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="1 of 1"):
        load(tmp_path, on_error="skip")


def test_a_folder_needs_an_image_size(tmp_path, save):
    with pytest.raises(ValueError, match="needs image_size"):
        load(tmp_path, image_size=None)


@pytest.mark.parametrize("other", ["test", "val", "Train", "validation"])
def test_the_whole_tree_is_no_training_split_beside_a_folder_named_like_a_split(tmp_path, save, other):
    save(tmp_path / "ant" / "a.png")
    save(tmp_path / other / "b.png")
    with pytest.raises(FileNotFoundError, match=f"no folder .*train for split train: there are {other}"):
        load(tmp_path)


def test_a_split_may_be_a_path_of_its_own(tmp_path, save):
    save(tmp_path / "elsewhere" / "a.png")
    assert len(load(tmp_path / "root", split=str(tmp_path / "elsewhere"))) == 1


def test_classes_of_two_splits_are_matched_by_name(tmp_path, save):
    for place in ("train/ant", "train/bee", "train/cat", "test/cat", "test/bee", "test/yak"):
        save(tmp_path / place / "a.png")
    train, test = load(tmp_path), load(tmp_path, split="test")
    assert test.class_names == ("bee", "cat", "yak") and test.labels.tolist() == [0, 1, 2]
    matched = test.numbered_like(train.class_names)
    assert matched.labels.tolist() == [1, 2, 3] and matched.class_names == ("ant", "bee", "cat", "yak")
    assert matched.classes == 4 and test.labels.tolist() == [0, 1, 2]
