import logging

import pytest

from ssl_transfer.data import load_images


def load(root, **options):
    return load_images("folder", root, **dict(split="train", image_size=16) | options)


def test_sub_folders_are_classes_in_alphabetical_order(tmp_path, save):
    for number, place in enumerate(["cat/b.png", "ant/a.png", "cat/deep/c.webp", "dog/d.jpg"]):
        save(tmp_path / "train" / place, 30 + number, 30)
    images = load(tmp_path)
    assert images.labels.tolist() == [0, 1, 1, 2] and images.classes == 3
    assert images.pixels.shape == (4, 3, 16, 16)


def test_loose_images_have_no_labels(tmp_path, save):
    save(tmp_path / "a.png")
    save(tmp_path / "sub" / "b.png")
    images = load(tmp_path)
    assert len(images) == 2 and images.labels is None and images.classes is None


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
    with pytest.raises(FileNotFoundError, match="no image under"):
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


def test_only_broken_files_are_an_error_even_if_skipped(tmp_path, save):
    (tmp_path / "d.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="1 of 1"):
        load(tmp_path, on_error="skip")


def test_a_folder_needs_an_image_size(tmp_path, save):
    with pytest.raises(ValueError, match="needs image_size"):
        load(tmp_path, image_size=None)


def test_the_whole_tree_is_no_training_split_beside_a_test_folder(tmp_path, save):
    save(tmp_path / "a.png")
    save(tmp_path / "test" / "b.png")
    with pytest.raises(FileNotFoundError, match="no folder .*train for split train"):
        load(tmp_path)


def test_a_split_may_be_a_path_of_its_own(tmp_path, save):
    save(tmp_path / "elsewhere" / "a.png")
    assert len(load(tmp_path / "root", split=str(tmp_path / "elsewhere"))) == 1


def test_classes_of_two_splits_are_matched_by_name(tmp_path, save):
    for place in ("train/ant", "train/bee", "train/cat", "test/cat", "test/bee", "test/yak"):
        save(tmp_path / place / "a.png")
    train, test = load(tmp_path), load(tmp_path, split="test")
    assert test.class_names == ("bee", "cat", "yak") and test.labels.tolist() == [0, 1, 2]
    matched = test.numbered_like(train)
    assert matched.labels.tolist() == [1, 2, 3] and matched.class_names == ("ant", "bee", "cat", "yak")
    assert matched.classes == 4 and test.labels.tolist() == [0, 1, 2]
