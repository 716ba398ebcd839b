import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from ssl_transfer.data.sources.decode import decode


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "gif", "tiff", "ppm"])
@pytest.mark.parametrize("size", [(64, 32), (33, 64), (32, 32), (10, 21), (16, 17)])
def test_an_image_is_resized_and_its_middle_kept_as_torchvision_does(picture, tmp_path, suffix, size):
    path = tmp_path / f"a.{suffix}"
    picture(*size).save(path)
    with Image.open(path) as image:
        theirs = functional.center_crop(functional.resize(functional.pil_to_tensor(image.convert("RGB")), [16]), [16])
    assert torch.equal(decode(path.read_bytes(), 16), theirs)


def test_a_large_jpeg_decoded_at_a_smaller_scale_is_nearly_the_same(picture, tmp_path):
    picture(640, 640).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.array(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    difference = np.abs(decode((tmp_path / "a.jpg").read_bytes(), 64).permute(1, 2, 0).numpy() - expected)
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
    assert (decode((tmp_path / f"a.{suffix}").read_bytes(), 32).int() - expected.int()).abs().max() <= 1


def test_a_palette_with_transparency_keeps_its_colors(tmp_path):
    GRAY.quantize(32).save(tmp_path / "a.png", transparency=bytes(range(32)))
    expected = torch.from_numpy(np.asarray(GRAY).copy()).expand(3, 32, 32)
    assert (decode((tmp_path / "a.png").read_bytes(), 32).int() - expected.int()).abs().max() <= 1


def test_a_one_bit_image_is_black_and_white(tmp_path):
    GRAY.convert("1").save(tmp_path / "a.png")
    assert set(decode((tmp_path / "a.png").read_bytes(), 32).unique().tolist()) == {0, 255}


def test_a_cmyk_jpeg_has_the_colors_of_its_rgb_twin(picture):
    encoded = []
    for image in (picture(64, 64), picture(64, 64).convert("CMYK")):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=100, subsampling=0)
        encoded.append(decode(file.getvalue(), 64).int())
    assert (encoded[0] - encoded[1]).abs().max() <= 6


@pytest.mark.parametrize("kind, size", [("PNG", 48), ("JPEG", 48), ("JPEG", 12)], ids=["png", "jpeg", "reduced jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_as_its_exif_data_say(picture, kind, size, orientation):
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    turns |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # how the upright image was turned before it was saved
    upright = picture(48, 48)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose[turns[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, kind, exif=exif, quality=100, subsampling=0)
    expected = functional.resize(functional.pil_to_tensor(upright), [size])
    assert (decode(file.getvalue(), size).int() - expected.int()).abs().max() <= (0 if kind == "PNG" else 5)


@pytest.mark.parametrize("encoded", [b"", b"not an image", b"\xff\xd8\xff\xe0 a jpeg that never was"])
def test_bytes_that_are_no_image_are_refused_in_one_line(encoded):
    with pytest.raises(ValueError) as error:
        decode(encoded, 8)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_of_any_kind_is_refused(picture, kind):
    file = io.BytesIO()
    picture(64, 64).save(file, kind)
    for size in (16, 48):  # a JPEG at a smaller scale, and at its own
        with pytest.raises(ValueError):
            decode(file.getvalue()[: len(file.getvalue()) // 2], size)
