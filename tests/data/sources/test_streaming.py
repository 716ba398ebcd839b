import multiprocessing
import os
import shutil

import pytest
import torch

from ssl_transfer.data import load_images
from ssl_transfer.data.batches import Batches
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.storage import FileStorage
from ssl_transfer.data.views.augment import Augment

VIEWS = [Augment(16, crop_scale=(0.3, 1.0), flip=0.5)] * 2


@pytest.fixture
def tree(tmp_path, save):
    """Ninety images of two classes, no two alike."""
    for number in range(90):
        save(tmp_path / "train" / "ab"[number % 2] / f"{number:02}.{'jpg' if number % 3 else 'png'}", 30 + number, 40)
    return tmp_path


def load(root, **options):
    return load_images("folder", root, **dict(split="train", image_size=20) | options)


def same_batch(ours, theirs):
    return (
        torch.equal(ours.index, theirs.index)
        and torch.equal(ours.labels, theirs.labels)
        and all(torch.equal(*pair) for pair in zip(ours.views, theirs.views, strict=True))
    )


def batches(images, **options):
    return Batches(images, VIEWS, **dict(seed=0, batch_size=40) | options)


def test_streamed_batches_equal_resident_ones_whatever_was_asked_for_before(tree):
    resident, streamed = batches(load(tree)), batches(load(tree, resident=False))
    for step in (0, 1, 2, 7, 3, 3):  # two steps an epoch
        assert same_batch(streamed.batch(step), resident.batch(step))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("workers, world", [(1, 1), (3, 1), (2, 2)])
def test_workers_and_processes_do_not_change_a_batch(tree, workers, world):
    whole = batches(load(tree))
    images = load(tree, resident=False, workers=workers)
    shares = [batches(images, rank=rank, world=world) for rank in range(world)]
    try:
        for step in (0, 1, 2, 9):
            parts = [share.batch(step) for share in shares]
            expected = whole.batch(step)
            assert torch.equal(torch.cat([part.index for part in parts]), expected.index)
            for view in range(2):
                assert torch.equal(torch.cat([part.views[view] for part in parts]), expected.views[view])
    finally:
        for share in shares:
            share.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_closing_ends_the_workers(tree):
    streamed = batches(load(tree, resident=False, workers=2))
    streamed.batch(0)
    assert len(multiprocessing.active_children()) == 2
    streamed.close()
    assert not multiprocessing.active_children()


def test_the_last_smaller_batch_of_an_epoch_is_streamed_too(tree):
    resident, streamed = (
        batches(load(tree, resident=choice), drop_last=False, batch_size=35) for choice in (True, False)
    )
    for step in (2, 3, 5):
        assert same_batch(streamed.batch(step), resident.batch(step))


def test_rows_parts_subsets_and_middles_are_those_of_resident_pixels(tree):
    resident, streamed = load(tree), load(tree, resident=False)
    assert streamed.pixels.shape == resident.pixels.shape and not streamed.resident and resident.resident
    chosen = torch.tensor([5, 80, 5])
    for change in (lambda images: images, lambda images: images.subset(chosen), lambda images: images.middle(10)):
        ours, theirs = change(streamed), change(resident)
        assert ours.pixels.shape == theirs.pixels.shape and torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.pixels[:2], theirs.pixels[:2])
        assert torch.equal(torch.cat(list(ours.parts(slice(1, 71), size=33))), theirs.pixels[1:71])
        assert list(ours.files) == list(theirs.files) == [ours.files[row] for row in range(len(ours))]
    names = list(resident.files)
    assert len(set(names)) == 90 and all((tree / "train" / name).is_file() for name in names)
    assert list(resident.subset(chosen).files) == [names[row] for row in chosen]


def test_no_rows_are_no_parts(tree):
    for images in (load(tree), load(tree, resident=False)):
        assert not list(images.parts(slice(90, 90), size=33))  # what a process beyond the last image asks for


def test_images_beyond_the_limit_are_streamed_unless_told_otherwise(tree, monkeypatch):
    assert load(tree).resident
    monkeypatch.setattr("ssl_transfer.data.sources.materialize.RESIDENT_LIMIT", 90 * 3 * 20 * 20 - 1)
    assert not load(tree).resident and load(tree, resident=True).resident


def test_a_streamed_fingerprint_is_of_names_content_and_canvas_wherever_the_files_lie(tree, tmp_path_factory):
    before = load(tree, resident=False).fingerprint
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    shutil.copytree(tree, moved)
    for path in moved.rglob("*.*"):
        os.utime(path, (1, 1))
    assert load(moved, resident=False).fingerprint == load(moved, decode=False).fingerprint == before
    assert load(tree, resident=False, image_size=24).fingerprint != before
    image = moved / "train" / "a" / "00.png"
    content = image.read_bytes()
    image.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    changed = load(moved, decode=False).fingerprint
    image.write_bytes(content)
    image.rename(image.with_name("00x.png"))
    assert len({before, changed, load(moved, resident=False).fingerprint}) == 3


def test_splits_of_equal_names_sizes_and_labels_have_different_fingerprints(tmp_path, save):
    for split, shade in (("train", 255), ("test", 100)):
        for number in range(4):
            save(tmp_path / split / "ab"[number % 2] / f"{number}.bmp", 16, 16, shade + number)
    sizes = {path.stat().st_size for path in tmp_path.rglob("*.bmp")}
    assert len(sizes) == 1
    for options in ({"resident": True}, {"resident": False}, {"decode": False}):
        train, test = (load(tmp_path, split=split, **options) for split in ("train", "test"))
        assert torch.equal(train.labels, test.labels) and train.fingerprint != test.fingerprint


def test_a_part_has_the_fingerprint_of_its_images_in_their_order(tree):
    images = load(tree, decode=False)
    chosen = torch.tensor([5, 80, 7])
    assert images.subset(chosen).fingerprint == load(tree, resident=False).subset(chosen).fingerprint
    assert len({images.subset(chosen[order]).fingerprint for order in ([0, 1, 2], [1, 0, 2], [0, 1])}) == 3


def breaks(path):
    """Make an image undecodable, its size and date unchanged."""
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_broken_files_are_met_before_training(tree):
    breaks(tree / "train" / "a" / "04.jpg")
    breaks(tree / "train" / "b" / "07.jpg")
    with pytest.raises(ValueError, match=r"2 of 90 images cannot be decoded: .*04\.jpg.*07\.jpg.*data\.on_error=skip"):
        load(tree, resident=False)


def test_skipped_files_leave_the_same_images_streamed_and_resident(tree):
    breaks(tree / "train" / "a" / "04.jpg")
    resident, streamed = load(tree, on_error="skip"), load(tree, on_error="skip", resident=False)
    assert len(streamed) == len(resident) == 89
    assert same_batch(batches(streamed).batch(3), batches(resident).batch(3))


@pytest.fixture
def checks(monkeypatch):
    """The number of images that were decoded to be checked, each time that a data set was."""
    counts = []
    decode = EncodedImages.decode_in_threads
    monkeypatch.setattr(
        EncodedImages,
        "decode_in_threads",
        lambda self, rows, size: counts.append(len(rows)) or decode(self, rows, size),
    )
    return counts


def test_files_are_checked_once_and_again_when_one_has_changed(tree, tmp_path_factory, checks):
    memory = tmp_path_factory.mktemp("memory")
    image = tree / "train" / "a" / "04.jpg"
    for change in (lambda: None, lambda: os.utime(image, (1, 1)), lambda: breaks(image)):  # the last keeps the date
        change()
        checks.clear()
        for _ in range(2):
            images = load(tree, resident=False, memory=memory, on_error="skip")
        assert checks == [90]
    assert len(images) == 89


@pytest.mark.parametrize(
    "note", ["", "[]", "null", "{}", '{"a": 1}', '{"images": 90, "broken": {"90": "x"}}', '{"images": 9, "broken": {}}']
)
def test_a_damaged_note_of_broken_images_is_not_believed(tree, tmp_path_factory, note, checks):
    memory = tmp_path_factory.mktemp("memory")
    load(tree, resident=False, memory=memory)
    (path,) = memory.iterdir()
    written = path.read_text()
    path.write_text(note)
    assert len(load(tree, resident=False, memory=memory)) == 90
    assert checks == [90, 90] and path.read_text() == written


def test_a_file_that_cannot_be_read_is_not_remembered_as_broken(tree, tmp_path_factory, monkeypatch):
    memory, read = tmp_path_factory.mktemp("memory"), FileStorage.read

    def fail(files, place):
        if files.name(place).endswith("04.jpg"):
            raise OSError(5, "Input/output error")
        return read(files, place)

    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "read", fail)
        with pytest.raises(ValueError, match=r"04\.jpg \(cannot be read: Input/output error\)"):
            load(tree, resident=False, memory=memory)
    assert len(load(tree, resident=False, memory=memory)) == 90


def test_a_file_that_breaks_during_training_is_named(tree):
    streamed = batches(load(tree, resident=False))
    streamed.batch(0)
    for number in range(90):
        breaks(next((tree / "train").glob(f"*/{number:02}.*")))
    with pytest.raises(ValueError, match=r"cannot be decoded: .*train/[ab]/\d\d\.(jpg|png) "):
        streamed.batch(5)
