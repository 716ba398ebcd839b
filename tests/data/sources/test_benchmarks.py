import hashlib
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import SVHN, Flowers102

from ssl_transfer.catalog.benchmarks import BENCHMARKS, SUITES
from ssl_transfer.config.data import Data
from ssl_transfer.data import load_images
from ssl_transfer.data.sources.benchmarks import VOC_CLASSES, voc_presence
from ssl_transfer.data.sources.joined import join
from tests.data.sources import layouts
from tests.test_config import ROOT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import datasets

# The classes of each split of a miniature, and how many images each has.
EXPECTED = {
    "aircraft": {split: {0: 2, 1: 2, 2: 2} for split in ("train", "val", "test")},
    "caltech101": {"train": {0: 30, 1: 30, 2: 30}, "test": {0: 3, 1: 3, 2: 3}},
    "cub200": {"train": {0: 3, 1: 3, 199: 3}, "test": {0: 2, 1: 2, 199: 2}},
    "dtd": {split: {0: 3, 1: 3} for split in ("train", "val", "test")},
    "eurosat": {"train": {0: 8, 1: 8, 2: 8}, "test": {0: 2, 1: 2, 2: 2}},
    "flowers102": {split: {0: 2, 1: 2, 2: 2} for split in ("train", "val", "test")},
    "food101": {split: {0: 3, 1: 3} for split in ("train", "test")},
    "gtsrb": {"train": {0: 3, 1: 3}, "test": {0: 2, 1: 2}},
    "pcam": {split: {0: 3, 1: 3} for split in ("train", "val", "test")},
    "pets": {split: {0: 3, 36: 3} for split in ("train", "test")},
    "resisc45": {split: {0: 3, 1: 3} for split in ("train", "val", "test")},
    "stanford_cars": {"train": {0: 2, 195: 2}, "test": {0: 1, 195: 1}},
    "sun397": {split: {0: 3, 1: 3} for split in ("train", "test")},
}


DRAWN_OF_EUROSAT = "AnnualCrop_4.jpg AnnualCrop_8.jpg Forest_3.jpg Forest_5.jpg River_7.jpg River_9.jpg".split()


@pytest.fixture(autouse=True)
def without_checksums(monkeypatch, tmp_path):
    """Of the published files; a miniature has others. And no cache in the home folder."""
    files = {what: (name, None) for what, (name, _) in Flowers102._file_dict.items()}
    monkeypatch.setattr(Flowers102, "_file_dict", files)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def load(name, root, split, **options):
    return load_images(name, root, split=split, image_size=12, **options)


def test_every_set_of_files_has_a_miniature():
    arrays = {"cifar10", "cifar100", "digits", "stl10", "svhn"}
    assert set(layouts.LAYOUTS) == {*EXPECTED, "voc2007"} == set(BENCHMARKS) - arrays
    assert all(name in BENCHMARKS for names in SUITES.values() for name in names)


def test_the_page_says_of_every_set_what_the_catalog_says():
    rows = [line for line in (ROOT / "docs" / "suite.md").read_text(encoding="utf-8").splitlines() if "](http" in line]
    for name, known in BENCHMARKS.items():
        images = " | ".join(f"{n:,}" if n else "" for n in (known.train, known.val, known.test))
        (row,) = [row for row in rows if row.startswith(f"| `{name}` |")]
        assert row.startswith(f"| `{name}` | {known.title} | {known.classes} | {images} | {known.measure} |")
        assert row.endswith(f"| [{known.licence}]({known.page}) |")


@pytest.mark.parametrize("name", sorted(layouts.LAYOUTS))
def test_a_recipe_may_name_every_set(name):
    data = Data.model_validate({"dataset": name, "batch_size": 8, "image_size": 32, "augment": {"preset": "eval"}})
    assert data.is_of_files


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_published_layout_is_read_with_its_splits(name, tmp_path):
    layouts.LAYOUTS[name](tmp_path)
    assert set(BENCHMARKS[name].splits) == set(EXPECTED[name])
    seen = []
    for split, classes in EXPECTED[name].items():
        images = load(name, tmp_path, split)
        assert Counter(images.labels.tolist()) == classes
        assert images.pixels.shape[1:] == (3, 12, 12) and (images.name, images.split)
        seen += [bytes(picture.numpy()) for picture in images.pixels]
    assert len(set(seen)) == len(seen) == sum(sum(classes.values()) for classes in EXPECTED[name].values())


def test_images_go_with_their_labels(tmp_path):
    """Of Flowers, whose splits are lists of numbers: image 13 is the first that is trained on."""
    layouts.flowers102(tmp_path)
    images = load("flowers102", tmp_path, "train", decode=False)
    names = [images.pixels.encoded.file_name(row).rpartition("/")[2] for row in range(len(images))]
    assert names == [f"image_{place:05d}.jpg" for place in range(13, 19)]
    assert images.labels.tolist() == [(place - 1) % 3 for place in range(13, 19)]


@pytest.mark.parametrize("name", sorted(layouts.LAYOUTS))
def test_a_set_that_is_not_there_says_how_to_get_it(name, tmp_path):
    with pytest.raises(FileNotFoundError) as refused:
        load(name, tmp_path, "train")
    assert BENCHMARKS[name].get in str(refused.value) and name in str(refused.value)


@pytest.mark.parametrize("name", ["aircraft", "cub200", "sun397", "voc2007"])
def test_a_listed_image_that_is_missing_is_named(name, tmp_path):
    layouts.LAYOUTS[name](tmp_path)
    lost = load(name, tmp_path, "test", decode=False).pixels.encoded.file_name(1)
    (tmp_path / lost).unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of its .* test images are missing.*{lost.rpartition('/')[2]}"):
        load(name, tmp_path, "test")


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="food101 has no split val: choose one of train, test"):
        load("food101", tmp_path, "val")


def test_a_draw_is_the_same_for_ever(tmp_path):
    layouts.eurosat(tmp_path)
    images = load("eurosat", tmp_path, "test", decode=False)
    names = [images.pixels.encoded.file_name(row).rpartition("/")[2] for row in range(len(images))]
    assert names == DRAWN_OF_EUROSAT


def test_presence_of_voc_is_that_of_its_lists(tmp_path):
    layouts.voc2007(tmp_path)
    assert list(VOC_CLASSES) == layouts.VOC
    presence = voc_presence(tmp_path, "val")
    assert presence.tolist() == [[layouts.voc_presence(column, place) for column in range(20)] for place in range(8)]
    images = load("voc2007", tmp_path, "val")
    assert len(images) == 8 and images.labels is None


def test_a_list_of_voc_in_another_order_is_refused(tmp_path):
    layouts.voc2007(tmp_path)
    path = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "cat_val.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    with pytest.raises(ValueError, match="cat_val.txt does not name the images"):
        voc_presence(tmp_path, "val")


def test_cars_is_also_read_as_saved_from_the_hub(tmp_path):
    layouts.saved("stanford_cars", "train", "test")(tmp_path)
    assert Counter(load("stanford_cars", tmp_path, "test").labels.tolist()) == {0: 3, 1: 3}


def test_svhn_is_read_with_its_zeros(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    path = tmp_path / "train_32x32.mat"
    savemat(path, {"X": pixels, "y": np.array([[10], [1], [9], [10]], dtype=np.uint8)})
    checksum = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(SVHN.split_list, "train", ["", path.name, checksum])
    images = load_images("svhn", tmp_path, split="train")
    assert images.labels.tolist() == [0, 1, 9, 0]
    assert (images.pixels[2].numpy() == pixels[..., 2].transpose(2, 0, 1)).all()
    with pytest.raises(FileNotFoundError, match="svhn lacks test_32x32.mat"):
        load_images("svhn", tmp_path, split="test")


def test_joined_splits_are_one_after_the_other(tmp_path):
    layouts.dtd(tmp_path)
    parts = [load("dtd", tmp_path, split, decode=False) for split in ("train", "val")]
    both = join(*parts)
    assert (both.split, len(both), both.classes) == ("train+val", 12, 2)
    assert torch.equal(both.labels, torch.cat([part.labels for part in parts]))
    rows = torch.tensor([7, 0, 11])
    assert torch.equal(both.pixels[rows], torch.cat([part.pixels[:] for part in parts])[rows])
    assert both.fingerprint not in {part.fingerprint for part in parts}
    assert len(both.pixels.encoded.storage.changed()) == 12


def test_joined_arrays_are_one_tensor():
    train, test = (load_images("digits", ".", split=split) for split in ("train", "test"))
    both = join(train, test)
    assert torch.equal(both.pixels, torch.cat([train.pixels, test.pixels])) and len(both.labels) == 1797
