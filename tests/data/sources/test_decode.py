import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision.transforms.v2 import functional

from ssl_transfer.data.sources.decode import decode


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "gif", "tiff", "ppm", "jp2", "avif"])
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


RAMP = np.tile(np.arange(256), (256, 1))


def tiff(values: np.ndarray, *, photometric: int = 1) -> bytes:
    """An uncompressed TIFF of one strip, written from the format's description: Pillow writes few of these kinds."""
    kind, (height, width) = values.dtype, values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(kind.newbyteorder("<")).tobytes()
    bits = struct.pack(f"<{channels}H", *[8 * kind.itemsize] * channels)
    entries = {256: width, 257: height, 259: 1, 262: 2 if channels == 3 else photometric, 277: channels, 278: height}
    entries[339] = {"u": 1, "i": 2, "f": 3}[kind.kind]
    shorts = {tag: (3, 1, value) for tag, value in entries.items()}
    longs = {273: (4, 1, 8 + len(bits)), 279: (4, 1, len(data))}
    depth = {258: (3, channels, 8 if channels > 1 else 8 * kind.itemsize)}
    table = sorted((shorts | longs | depth).items())
    fields = b"".join(struct.pack("<HHII", tag, *value) for tag, value in table)
    start = 8 + len(bits) + len(data)
    return struct.pack("<2sHI", b"II", 42, start) + bits + data + struct.pack("<H", len(table)) + fields + bytes(4)


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.float32) / 255,
        RAMP.astype(np.float32),
        RAMP.astype(np.int32),
        RAMP.astype(np.uint32),
        RAMP.astype(np.int16),
        RAMP.astype(np.uint16) * 257,
        np.repeat(RAMP[:, :, None].astype(np.uint16) * 257, 3, axis=2),
    ],
    ids=["0 to 1", "float 0 to 255", "int32", "uint32", "int16", "uint16", "uint16 rgb"],
)
def test_values_of_a_known_range_become_8_bits(values):
    expected = torch.from_numpy(RAMP.astype(np.uint8)).expand(3, 256, 256)
    assert (decode(tiff(values), 256).int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_that_counts_from_white_to_black_is_turned_around(dtype):
    full = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}[dtype]
    pixels = decode(tiff((RAMP / 255 * full).astype(dtype), photometric=0), 256)
    assert (pixels[0].int() - torch.from_numpy(255 - RAMP)).abs().max() <= 1


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.float32) * 257,
        RAMP.astype(np.float32) / 128 - 1,
        RAMP.astype(np.float32) / 255 * 1.01,
        np.where(RAMP == 7, np.nan, RAMP / 255).astype(np.float32),
        RAMP.astype(np.int32) * 1000,
        RAMP.astype(np.int32) - 1,
        RAMP.astype(np.int32) // 32,
        RAMP.astype(np.uint16) * 16,
        RAMP.astype(np.uint16),
        np.repeat(RAMP[:, :, None].astype(np.uint16) * 16, 3, axis=2),
    ],
    ids=str,
)
def test_values_of_an_unknown_range_are_refused_rather_than_made_black(values):
    with pytest.raises(ValueError, match="the range of its values is not known .*: save it with 8 bits"):
        decode(tiff(values), 64)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_black_is_black_in_any_range(dtype):
    assert not decode(tiff(np.zeros((8, 8), dtype)), 8).any()


def test_12_bits_are_read_where_the_file_says_so_and_refused_where_it_says_16():
    values = (RAMP * 16).astype(">u2").tobytes()
    expected = torch.from_numpy(RAMP)
    assert (decode(b"P5 256 256 4095\n" + values, 256)[0].int() - expected).abs().max() <= 1
    with pytest.raises(ValueError, match="its brightest pixel would be 15 of 255"):
        decode(b"P5 256 256 65535\n" + values, 256)


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


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def text(name: str, content: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(name, content, zip=True)
    return info


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on the EXIF data
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", dict(exif=b"Exif\0\0garbage!")),
        ("PNG", dict(exif=b"garbage!")),
        ("WEBP", dict(exif=b"garbage!")),
        ("PNG", dict(pnginfo=text("Raw profile type exif", "\nexif\n       8\nzzzz"))),
        ("PNG", dict(pnginfo=text("Comment", "x" * 3_000_000))),
        ("PNG", dict(icc_profile=bytes(3_000_000))),
        ("JPEG", dict(icc_profile=b"no profile")),
    ],
    ids=["jpeg exif", "png exif", "webp exif", "png raw profile", "long comment", "long profile", "no profile"],
)
def test_whole_pixels_are_read_whatever_is_said_beside_them(picture, kind, options):
    assert torch.equal(decode(saved(picture(), kind, **options), 16), decode(saved(picture(), kind), 16))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_image_is_turned_though_the_rest_of_its_exif_data_is_broken(picture):
    entries = [(0x0112, 3, struct.pack("<HH", 6, 0)), (0x0100, 9, struct.pack("<i", -5))]  # turned; a negative width
    fields = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)
    stored = picture(48, 48).transpose(Image.Transpose.ROTATE_90)
    expected = functional.pil_to_tensor(picture(48, 48))
    pixels = decode(saved(stored, "JPEG", exif=exif, quality=100, subsampling=0), 48)
    assert (pixels.int() - expected.int()).abs().max() <= 5


@pytest.mark.parametrize("shape", [(20_000, 1), (1, 20_000), (3, 700)])
def test_the_middle_of_a_very_long_image_is_its_own(shape):
    long = np.arange(max(shape))
    values = (long % 256 if min(shape) == 1 else long * 255 // 700).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(values if shape[0] > shape[1] else values[:, None], shape[::-1]).copy())
    pixels = decode(saved(image, "PNG"), 8)[0].double()
    profile = pixels.mean(0) if shape[0] > shape[1] else pixels.mean(1)
    if min(shape) == 1:  # eight times enlarged: the two pixels at the middle, and what is between them
        assert (profile - long[10_000] % 256).abs().max() <= 1.01
    else:
        assert (profile - values[348:352].mean()).abs().max() <= 2


def test_a_long_image_is_read_in_little_memory():
    program = """
import io, resource
from PIL import Image
from ssl_transfer.data.sources.decode import decode
file = io.BytesIO()
Image.new("RGB", (20_000, 1), (9, 8, 7)).save(file, "PNG")
decode(file.getvalue(), 1)  # loads what is loaded at the first use
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode(file.getvalue(), 224)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 200_000  # KiB: the whole would take 3 GB


def test_a_file_is_read_as_what_it_holds_and_other_formats_are_not_tried(tmp_path, picture, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # where a program named gs would be found
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\n: > {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ValueError, match="no image in a format that is read: AVIF, BMP"):
        decode(postscript, 8)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="no image in a format that is read"):
        decode(saved(picture(), "TGA"), 8)


@pytest.mark.parametrize("encoded", [b"", b"not an image", b"\xff\xd8\xff\xe0 a jpeg that never was"])
def test_bytes_that_are_no_image_are_refused_in_one_line(encoded):
    with pytest.raises(ValueError) as error:
        decode(encoded, 8)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("PNG", {}), ("GIF", {}), ("JPEG2000", {}), ("WEBP", {"lossless": True}), ("AVIF", {})],
)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_file_whose_end_is_zeros_is_refused(kind, options, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    encoded = saved(noise, kind, **options)
    written = int(share * len(encoded))
    for padded in (encoded + bytes(1000), encoded + b"more"):
        assert torch.equal(decode(padded, 32), decode(encoded, 32))
    with pytest.raises(ValueError):
        decode(encoded[:written] + bytes(len(encoded) - written), 32)


def test_an_image_that_is_compressed_to_zeros_is_read():
    for options in (dict(format="WEBP"), dict(format="WEBP", lossless=True), dict(format="AVIF"), dict(format="PNG")):
        for size in ((2000, 2000), (17, 5)):
            file = io.BytesIO()
            Image.new("RGB", size).save(file, **options)
            assert not decode(file.getvalue(), 8).any()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_a_truncated_file_of_any_kind_is_refused(picture, kind):
    file = io.BytesIO()
    picture(64, 64).save(file, kind)
    for size in (16, 48):  # a JPEG at a smaller scale, and at its own
        with pytest.raises(ValueError):
            decode(file.getvalue()[: len(file.getvalue()) // 2], size)
