import gc
import io
import pickle
import tarfile
import warnings

import pytest
import torch
import webdataset

from ssl_transfer.data import load_images
from ssl_transfer.data.sources.decode import decode


def load(root, **options):
    return load_images("webdataset", root, **dict(split="train", image_size=16) | options)


def encoded(image):
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path, picture):
    """Two shards as webdataset's own writer makes them, ten samples of three classes."""
    samples = []
    with webdataset.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=6, verbose=0) as writer:
        for number in range(10):
            samples.append((encoded(picture(30 + number, 30)), number % 3))
            writer.write({"__key__": f"{number:05}", "jpg": samples[-1][0], "cls": samples[-1][1], "txt": "words"})
    return tmp_path, samples


@pytest.mark.parametrize("resident", [True, False])
def test_shards_give_the_images_and_classes_that_webdataset_reads(shards, resident):
    root, samples = shards
    images = load(root, resident=resident)
    tars = [str(root / f"train-{number:06}.tar") for number in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files to the garbage collector
        theirs = list(webdataset.WebDataset(tars, shardshuffle=False).decode().to_tuple("__key__", "cls"))
        gc.collect()
    assert images.labels.tolist() == [label for _, label in theirs] and images.classes == 3
    for row, (content, _) in enumerate(samples):
        assert torch.equal(images.pixels[row : row + 1][0], decode(content, 16))


@pytest.mark.parametrize("split", ["train", "train-*.tar", "train-00000[01].tar"])
def test_a_split_is_a_prefix_or_a_pattern(shards, split):
    assert len(load(shards[0], split=split)) == 10


def test_a_split_may_be_one_tar_file_or_a_folder_of_them(shards):
    root, _ = shards
    assert len(load(root, split="train-000001.tar")) == 4
    (root / "more").mkdir()
    (root / "train-000000.tar").rename(root / "more" / "a.tar")
    assert len(load(root, split="more")) == 6


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_images_without_classes_have_no_labels(tmp_path, picture):
    write_tar(tmp_path / "train.tar", {"deep/a.x/1.png": encoded(picture()), "2.jpg": encoded(picture())})
    images = load(tmp_path)
    assert len(images) == 2 and images.labels is None


def test_a_class_that_some_images_lack_is_an_error(tmp_path, picture):
    write_tar(tmp_path / "train.tar", {"1.jpg": encoded(picture()), "1.cls": b"4", "2.jpg": encoded(picture())})
    with pytest.raises(ValueError, match=r"1 of 2 images .* have no class, the first is 2\.jpg"):
        load(tmp_path)


def test_a_negative_class_is_none(tmp_path, picture):
    members = {"1.jpg": encoded(picture()), "1.cls": b"-1", "2.jpg": encoded(picture()), "2.cls": b"-1"}
    write_tar(tmp_path / "train.tar", members)
    assert load(tmp_path).labels is None
    write_tar(tmp_path / "train.tar", members | {"2.cls": b"0"})
    with pytest.raises(ValueError, match=r"1 of 2 images .* have no class, the first is 1\.jpg: .* of 0 or more"):
        load(tmp_path)


def test_missing_shards_say_where_was_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no tar file for split train: looked for {tmp_path}/train, .*"):
        load(tmp_path)


def test_a_shard_without_images_is_refused(tmp_path):
    write_tar(tmp_path / "train.tar", {"1.txt": b"words"})
    with pytest.raises(FileNotFoundError, match=r"No member of .*train\.tar ends in"):
        load(tmp_path)


@pytest.mark.parametrize("resident", [True, False])
def test_a_truncated_shard_is_named(shards, resident):
    path = shards[0] / "train-000001.tar"
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    for end in (last.offset_data + 1, last.offset - 900, 700):
        path.write_bytes(path.read_bytes()[:end])
        with pytest.raises(ValueError, match=r"train-000001\.tar"):
            load(shards[0], resident=resident)


def test_broken_members_are_listed_with_their_shard(tmp_path, picture):
    write_tar(tmp_path / "train.tar", {"1.jpg": encoded(picture()), "2.jpg": b"nothing"})
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be decoded: .*train\.tar:2\.jpg"):
        load(tmp_path)
    assert len(load(tmp_path, on_error="skip")) == 1


def test_an_index_travels_to_worker_processes(shards):
    pixels = load(shards[0], resident=False).pixels
    assert torch.equal(pickle.loads(pickle.dumps(pixels))[:3], pixels[:3])
