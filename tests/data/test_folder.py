import logging

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_transfer.data.datasets import load_images
from ssl_transfer.data.folder import decode


def picture(width=40, height=30):
    """A smooth color picture, which survives JPEG."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack((across, down, 255 - across), axis=2).astype(np.uint8))


def load(root, **options):
    return load_images("folder", root, **dict(split="train", download=False, image_size=16) | options)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def test_sub_folders_are_classes_in_alphabetical_order(tmp_path):
    for number, place in enumerate(["cat/b.png", "ant/a.png", "cat/deep/c.webp", "dog/d.jpg"]):
        save(tmp_path / "train" / place, picture(30 + number, 30))
    images = load(tmp_path)
    assert images.labels.tolist() == [0, 1, 1, 2] and images.classes == 3
    assert images.pixels.shape == (4, 3, 16, 16)


def test_loose_images_have_no_labels(tmp_path):
    save(tmp_path / "a.png", picture())
    save(tmp_path / "sub" / "b.png", picture())
    images = load(tmp_path)
    assert len(images) == 2 and images.labels is None and images.classes is None


def test_each_split_reads_its_own_folder(tmp_path):
    save(tmp_path / "train" / "a.png", picture())
    save(tmp_path / "test" / "b.png", picture())
    save(tmp_path / "test" / "c.png", picture())
    assert len(load(tmp_path)) == 1 and len(load(tmp_path, split="test")) == 2


def test_a_tree_without_a_test_folder_has_no_test_split(tmp_path):
    save(tmp_path / "a.png", picture())
    with pytest.raises(FileNotFoundError, match="no folder .*test"):
        load(tmp_path, split="test")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(FileNotFoundError, match="no image under"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "gif", "tiff", "ppm"])
@pytest.mark.parametrize("size", [(64, 32), (32, 64), (32, 32), (10, 20)])
def test_an_image_is_resized_and_its_middle_kept(tmp_path, suffix, size):
    path, side = tmp_path / f"a.{suffix}", min(size)
    save(path, picture(*size))
    width, height = size[0] * 16 // side, size[1] * 16 // side
    left, top = (width - 16) // 2, (height - 16) // 2
    with Image.open(path) as image:
        whole = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    expected = np.array(whole.crop((left, top, left + 16, top + 16))).astype(int)
    difference = np.abs(decode(path, 16).permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= 1  # Pillow rounds its weights once more where it is given a box


def test_a_large_jpeg_decoded_at_a_smaller_scale_is_nearly_the_same(tmp_path):
    save(tmp_path / "a.jpg", picture(640, 640))
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.array(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    difference = np.abs(decode(tmp_path / "a.jpg", 64).permute(1, 2, 0).numpy() - expected)
    assert difference.mean() <= 0.5 and difference.max() <= 2


GRAY = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))


@pytest.mark.parametrize(
    "image, suffix",
    [
        (GRAY, "png"),
        (GRAY.convert("LA"), "png"),
        (GRAY.convert("RGBA"), "png"),
        (GRAY.convert("CMYK"), "tif"),
        (GRAY.quantize(32), "png"),
        (Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257), "png"),
        (Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257), "tif"),
    ],
    ids=["gray", "gray with alpha", "alpha", "cmyk", "palette", "16-bit png", "16-bit tiff"],
)
def test_every_mode_becomes_the_same_rgb(tmp_path, image, suffix):
    image.save(tmp_path / f"a.{suffix}")
    expected = torch.from_numpy(np.asarray(GRAY).copy()).expand(3, 32, 32)
    assert (decode(tmp_path / f"a.{suffix}", 32).int() - expected.int()).abs().max() <= 1


def test_a_palette_with_transparency_keeps_its_colors(tmp_path):
    GRAY.quantize(32).save(tmp_path / "a.png", transparency=bytes(range(32)))
    expected = torch.from_numpy(np.asarray(GRAY).copy()).expand(3, 32, 32)
    assert (decode(tmp_path / "a.png", 32).int() - expected.int()).abs().max() <= 1


def test_a_one_bit_image_is_black_and_white(tmp_path):
    GRAY.convert("1").save(tmp_path / "a.png")
    assert set(decode(tmp_path / "a.png", 32).unique().tolist()) == {0, 255}


@pytest.fixture
def with_broken_files(tmp_path):
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.jpg", picture())
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


def test_only_broken_files_are_an_error_even_if_skipped(tmp_path):
    (tmp_path / "d.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="1 of 1"):
        load(tmp_path, on_error="skip")


def test_a_folder_needs_an_image_size(tmp_path):
    with pytest.raises(ValueError, match="needs image_size"):
        load(tmp_path, image_size=None)
