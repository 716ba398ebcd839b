import gc
import io
import pickle
import tarfile
import warnings

import pytest
import torch
import webdataset

from ssl_transfer.data import Inventory, load_images
from ssl_transfer.data.sources.decode import decode


def load(root, **options):
    return load_images("webdataset", root, **dict(split="train", image_size=16) | options)


def saved(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def encoded(image):
    return saved(image, "JPEG")


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
    write_tar(tmp_path / "train.tar", {"deep/a.x/1.png": encoded(picture()), "./2.jpg": encoded(picture())})
    images = load(tmp_path)
    assert len(images) == 2 and images.labels is None and images.inventory == Inventory(2)


def test_a_class_that_some_images_lack_is_an_error(tmp_path, picture):
    write_tar(tmp_path / "train.tar", {"1.jpg": encoded(picture()), "1.cls": b"4", "2.jpg": encoded(picture())})
    with pytest.raises(ValueError, match=r"1 of 2 images .* have no class, the first is 2\.jpg: .*labels=none"):
        load(tmp_path)
    assert load(tmp_path, labels="none").labels is None


def test_a_negative_class_is_none(tmp_path, picture):
    members = {"1.jpg": encoded(picture()), "1.cls": b"-1", "2.jpg": encoded(picture()), "2.cls": b"-1"}
    write_tar(tmp_path / "train.tar", members)
    assert load(tmp_path).labels is None
    write_tar(tmp_path / "train.tar", members | {"2.cls": b"0"})
    with pytest.raises(ValueError, match=r"1 of 2 images .* have no class, the first is 1\.jpg: .* of 0 or more"):
        load(tmp_path)


def test_classes_may_be_names_and_are_matched_to_another_splits_by_name(tmp_path, picture):
    for split, classes in {"train": ["dog", "ant", "cat"], "test": ["cat", "dog"]}.items():
        members = [(f"{n}.jpg", encoded(picture())) for n in range(len(classes))]
        members += [(f"{n}.cls", name.encode()) for n, name in enumerate(classes)]
        write_tar(tmp_path / f"{split}.tar", dict(members))
    train, test = load(tmp_path), load(tmp_path, split="test")
    assert train.class_names == ("ant", "cat", "dog") and train.labels.tolist() == [2, 0, 1]
    assert test.numbered_like(train.class_names).labels.tolist() == [1, 2]


def test_a_class_that_is_neither_number_nor_name_is_refused_with_its_member(tmp_path, picture):
    for content in (b"3.0", b"", b"\xff"):
        write_tar(tmp_path / "train.tar", {"1.jpg": encoded(picture()), "1.cls": content})
        with pytest.raises(ValueError, match=r"train\.tar:1\.cls holds .*neither a whole number nor the name"):
            load(tmp_path)
    members = {"1.jpg": encoded(picture()), "1.cls": b"3", "2.jpg": encoded(picture()), "2.cls": b"cat"}
    write_tar(tmp_path / "train.tar", members)
    with pytest.raises(ValueError, match=r"2\.jpg in .* has the label 'cat', where 1\.jpg has 3"):
        load(tmp_path)


def test_a_number_that_can_be_no_class_is_refused(tmp_path, picture):
    write_tar(tmp_path / "train.tar", {"1.jpg": encoded(picture()), "1.cls": b"1000000000000"})
    with pytest.raises(ValueError, match="has the label 1000000000000: number its classes from 0 on"):
        load(tmp_path)


def test_capital_letters_and_a_byte_order_mark_are_read_over(tmp_path, picture):
    write_tar(tmp_path / "train.tar", {"1.JPG": encoded(picture()), "1.CLS": b"\xef\xbb\xbf3\n"})
    assert load(tmp_path).labels.tolist() == [3]


def test_a_sample_has_one_image_and_the_others_are_counted(tmp_path, picture):
    members = {}
    for number in range(2):
        members |= {f"{number}.seg.png": encoded(picture(shade=0)), f"{number}.jpg": encoded(picture(shade=number))}
        members |= {f"{number}.cls": b"%d" % number, f"{number}.json": b"{}"}
    write_tar(tmp_path / "train.tar", members | {"2.txt": b"words", "._0.jpg": b"x", "__MACOSX/0.jpg": b"x"})
    images = load(tmp_path)
    expected = [decode(encoded(picture(shade=number)), 16) for number in range(2)]
    assert torch.equal(images.pixels, torch.stack(expected)) and images.labels.tolist() == [0, 1]
    assert {(part.reason, part.count, part.first) for part in images.inventory.left_out} == {
        ("further images of samples", 2, ("0.seg.png", "1.seg.png")),
        ("members ending in .json", 2, ("0.json", "1.json")),
        ("samples without an image", 1, ("2",)),
        ("hidden, or of the operating system", 2, ("._0.jpg", "__MACOSX/0.jpg")),
    }
    masks = load(tmp_path, image="seg.png")
    assert torch.equal(masks.pixels[1], decode(encoded(picture(shade=0)), 16)) and masks.labels.tolist() == [0, 1]


@pytest.mark.parametrize("names", [["0.jpg", "0.png"], ["0.left.png", "0.right.png"]])
def test_a_sample_of_several_images_asks_which_is_meant(tmp_path, picture, names):
    write_tar(tmp_path / "train.tar", {name: encoded(picture()) for name in names} | {"0.cls": b"0"})
    with pytest.raises(ValueError, match="choose one, such as image="):
        load(tmp_path)
    assert len(load(tmp_path, image=names[1].partition(".")[2])) == 1
    with pytest.raises(
        FileNotFoundError, match=r"has an image whose name goes on with webp \(.*samples without an image: 1"
    ):
        load(tmp_path, image="webp")


@pytest.mark.parametrize(
    "names",
    [
        ["n01_18.5.png", "n01_18.5.cls", "n01_18.6.png", "n01_18.6.cls"],
        ["2024.01.02.png", "2025.01.02.png"],
        ["a.png", "a.cls", "b.v2.png", "b.v2.cls"],
        ["a.png", "a.cls", "a.v2.png", "a.v2.cls"],
    ],
)
def test_a_name_with_dots_is_refused_as_it_may_be_of_another_sample(tmp_path, picture, names):
    write_tar(tmp_path / "train.tar", {name: b"0" if name.endswith("cls") else encoded(picture()) for name in names})
    with pytest.raises(ValueError, match="a sample's name ends at its first dot: name samples without dots"):
        load(tmp_path)


def test_what_is_in_a_tar_file_twice_or_is_a_link_is_refused(tmp_path, picture):
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for content in (encoded(picture()), encoded(picture(50))):
            member = tarfile.TarInfo("1.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=r"has two members 1\.jpg"):
        load(tmp_path)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(tmp_path / "train.tar", "w") as archive:
            member = tarfile.TarInfo("1.jpg")
            member.type, member.linkname = kind, "elsewhere.jpg"
            archive.addfile(member)
        with pytest.raises(ValueError, match=r"train\.tar:1\.jpg is a link"):
            load(tmp_path)


def test_missing_shards_say_where_was_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no tar file for split train: looked for {tmp_path}/train, .*"):
        load(tmp_path)


def test_a_shard_without_images_is_refused(tmp_path):
    write_tar(tmp_path / "train.tar", {"1.txt": b"words"})
    with pytest.raises(
        FileNotFoundError,
        match=r"No sample in .*train\.tar has an image ending in .* \(.*samples without an image: 1 \(1\)\)",
    ):
        load(tmp_path)


def whole_and_ends(path):
    """The content of a tar file, and where each of its members ends."""
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    return content, [member.offset for member in members[1:]], members


def test_a_shard_that_was_cut_anywhere_is_named(shards):
    path = shards[0] / "train-000001.tar"
    content, between, members = whole_and_ends(path)
    last = members[-1]
    end = last.offset_data + 512
    for cut in [*between, last.offset_data + 1, last.offset - 900, 700, end, end + 512, 0]:
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"train-000001\.tar (is no whole|does not end)"):
            load(shards[0])


@pytest.mark.parametrize("program", ["python", "two blocks"])
def test_a_whole_shard_is_read_whatever_fills_it_up(shards, program):
    path = shards[0] / "train-000001.tar"
    content, _, members = whole_and_ends(path)
    end = members[-1].offset_data + 512
    assert len(content) % tarfile.RECORDSIZE == 0
    if program == "two blocks":
        path.write_bytes(content[: end + 1024])
    assert len(load(shards[0])) == 10


def test_a_shard_whose_end_is_zeros_is_named(tmp_path, picture):
    write_tar(tmp_path / "train.tar", {f"{number:03}.jpg": encoded(picture(99, 99)) for number in range(30)})
    content, between, members = whole_and_ends(tmp_path / "train.tar")
    last_record = len(content) - tarfile.RECORDSIZE
    within = [member.offset_data + 600 for member in members if member.offset_data + 600 < last_record]
    for start in [0, *(end for end in between if end < last_record), *within]:
        (tmp_path / "train.tar").write_bytes(content[:start] + bytes(len(content) - start))
        with pytest.raises(ValueError, match=r"train\.tar ends in [0-9]+ zeros"):
            load(tmp_path)


def test_two_shards_in_one_file_and_a_damaged_header_are_named(shards):
    path = shards[0] / "train-000001.tar"
    content, between, _ = whole_and_ends(path)
    for damaged in (content * 2, content[: between[2]] + b"x" + content[between[2] + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"train-000001\.tar is damaged at byte [0-9]+, or is two tar files in one"
        ):
            load(shards[0])


def test_a_missing_shard_is_named_unless_others_are_asked_for(shards):
    (shards[0] / "train-000001.tar").rename(shards[0] / "train-000002.tar")
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of its numbered files, the first is number 1 of train-"):
        load(shards[0])
    assert len(load(shards[0], split="train-*.tar")) == 10


def test_a_link_to_no_shard_is_not_passed_over(shards):
    (shards[0] / "train-000001.tar").unlink()
    (shards[0] / "train-000001.tar").symlink_to("nowhere.tar")
    for split in ("train", "train-*.tar"):
        with pytest.raises(FileNotFoundError, match=r"train-000001\.tar"):
            load(shards[0], split=split)


def test_a_root_may_have_the_signs_of_a_pattern_in_its_name(tmp_path, picture):
    (tmp_path / "[old] *").mkdir()
    write_tar(tmp_path / "[old] *" / "train.tar", {"1.jpg": encoded(picture())})
    assert len(load(tmp_path / "[old] *")) == 1


def test_a_fingerprint_is_of_the_content_of_the_members(tmp_path, picture):
    prints = set()
    for shade in (255, 254):
        write_tar(tmp_path / "train.tar", {"1.bmp": saved(picture(shade=shade), "BMP"), "1.cls": b"0"})
        prints.add(load(tmp_path, decode=False).fingerprint)
    (tmp_path / "train.tar").rename(tmp_path / "test.tar")
    assert len(prints | {load(tmp_path, split="test", decode=False).fingerprint}) == 3


def test_broken_members_are_listed_with_their_shard(tmp_path, picture):
    write_tar(tmp_path / "train.tar", {"1.jpg": encoded(picture()), "2.jpg": b"nothing"})
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be decoded: .*train\.tar:2\.jpg"):
        load(tmp_path)
    assert len(load(tmp_path, on_error="skip")) == 1


def test_an_index_travels_to_worker_processes(shards):
    pixels = load(shards[0], resident=False).pixels
    assert torch.equal(pickle.loads(pickle.dumps(pixels))[:3], pixels[:3])
